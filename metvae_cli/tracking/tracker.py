"""The tracker of a training run: TensorBoard, metrics.csv, pictures and progress."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from metvae_cli.tracking.console import console
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.tensorboard import Board

_MOVES_PER_SECOND = 4
Pictures = Callable[[], Mapping[str, Tensor]]


class RunTracker:
    """Sends what the trainer reports to its places.

    Args:
        board: TensorBoard
        metrics: metrics.csv
        draw: makes the pictures by name, each (3, H, W); called with a random stream of its own
        max_epochs: for the progress bar, which is shown on a terminal only
        each_iteration: called after each iteration of training
        bar: whether there is a progress bar
    """

    def __init__(
        self,
        board: Board,
        metrics: MetricsFile,
        draw: Pictures,
        max_epochs: int,
        each_iteration: Callable[[], None] = lambda: None,
        *,
        bar: bool = True,
    ) -> None:
        self.board = board
        self.metrics = metrics
        self._draw = draw
        self._each_iteration = each_iteration
        self._max_epochs = max_epochs
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("val/bound {task.fields[bound]}"),
            console=console(),
            disable=not (bar and console().is_terminal),
            transient=True,
            refresh_per_second=_MOVES_PER_SECOND,
        )
        self._moves_at = 0.0
        self._task = self._bar.add_task("train", epoch="1", bound="-", total=None)

    def __enter__(self) -> "RunTracker":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Scalars at an iteration."""
        self.board.scalars(step, values)

    def log_weights(self, step: int, values: Tensor) -> None:
        """Histogram of log-weights less the mean of their datum."""
        centred = values - values.mean(0) if len(values) > 1 else values
        self.board.histogram(step, "val/log_weights", centred)

    def row(self, values: dict[str, float]) -> None:
        """One row of metrics.csv."""
        self.metrics.append(values)
        self._bar.update(self._task, bound=f"{values['val/bound']:.2f}")

    def pictures(self, step: int, prefix: str = "") -> None:
        """Draw, without touching the random stream of training. prefix: of the names."""
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            torch.manual_seed(0)
            for name, image in self._draw().items():
                self.board.image(step, f"{prefix}{name}", image)

    def progress(self, epoch: int, done: int, total: int) -> None:
        """Move the bar, a few times per second."""
        self._each_iteration()
        if self._bar.disable or (now := time.monotonic()) < self._moves_at:
            return
        self._moves_at = now + 1 / _MOVES_PER_SECOND
        whole = total * self._max_epochs
        self._bar.update(
            self._task, completed=epoch * total + done, total=whole, epoch=f"{epoch + 1}/{self._max_epochs}"
        )

    def position(self) -> int:
        """Length of metrics.csv in bytes; events up to now are with the operating system, as its rows are."""
        self.board.flush()  # a checkpoint comes next: what is before it must not die with the process
        return self.metrics.position()


class Silence:
    """The tracker of a process that writes nothing, since another one of the same run does."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Nothing."""

    def log_weights(self, step: int, values: Tensor) -> None:
        """Nothing."""

    def row(self, values: dict[str, float]) -> None:
        """Nothing."""

    def pictures(self, step: int) -> None:
        """Nothing."""

    def progress(self, epoch: int, done: int, total: int) -> None:
        """Nothing."""

    def position(self) -> int:
        """Nothing has been written."""
        return 0
