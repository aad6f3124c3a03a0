"""TensorBoard: every event of a run goes into the run's own directory, by one writer."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import Tensor
from torch.utils.tensorboard.summary import custom_scalars, hparams
from torch.utils.tensorboard.summary import text as text_summary

from metvae_cli.tracking.event_files import cut_back
from metvae_cli.tracking.event_writer import EventWriter

FINAL = "final/"
_BINS = 64  # of a histogram, evenly over the range of its values
# One set of charts for every method, number of steps and command: tags are regular expressions, and TensorBoard puts
# the layouts of all runs side by side unless they are equal.
_CHARTS = {
    "bound": r"(train|val)/bound$",
    "terms": r"val/(reconstruction|kl|log_target|log_initial)$",
    "acceptance": r"train/accept_\d+$",
    "step size": r"step_size/\d+$",
    "divergences": r"train/divergent_\d+$",
    "weights": r"(train|val)/(log_weight_variance|effective_samples)$",
    "gradient norms": r"train/gradient_norm.*$",
    "speed": r"speed/.*_per_second$",
}
# What a run says of itself as a whole: once, however often it goes on.
_WHOLE = ("config/text_summary", "command/text_summary", "custom_scalars__config__")


class Board:
    """A TensorBoard writer.

    Args:
        folder: the run's directory
        resume_from: iteration of the checkpoint gone on from; later events of the earlier part are dropped, and what
            the run says of itself as a whole, which is to be said again
    """

    def __init__(self, folder: Path, resume_from: int | None = None) -> None:
        self._resumed_at = resume_from
        self._there = set[str]() if resume_from is None else cut_back(folder, resume_from, _is_of_the_whole)
        # The mark is for a TensorBoard that has read the earlier part already.
        purge = None if resume_from is None else resume_from + 1
        self._writer = EventWriter(folder, purge)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar per name."""
        found = [Summary.Value(tag=name, simple_value=value) for name, value in values.items() if self._new(step, name)]
        if found:
            # One event for all: `add_scalar` would make one of each, at several times the cost.
            self._add(*found, step=step)

    def histogram(self, step: int, name: str, values: Tensor) -> None:
        """A histogram of the finite values; TensorBoard's bins end at 1e20."""
        finite = values[torch.isfinite(values)].double().clamp(-1e19, 1e19).cpu()
        if len(finite) and self._new(step, name):
            self._add(Summary.Value(tag=name, histo=_histogram(finite)), step=step)

    def image(self, step: int, name: str, image: Tensor) -> None:
        """An image (C, H, W) in [0, 1], C 1 or 3."""
        if self._new(step, name):
            self._add(Summary.Value(tag=name, image=_png(image)), step=step)

    def text(self, name: str, text: str) -> None:
        """A text in Markdown."""
        self._writer.add(text_summary(name, text))

    def profile(self, table: str, iterations: int) -> None:
        """What the profiler found, so many iterations after the start or the resume."""
        text = verbatim(f"the trace: profile_trace.json.gz in this run's directory, for ui.perfetto.dev\n\n{table}")
        self._writer.add(text_summary("profile", text), (self._resumed_at or 0) + iterations)

    def layout(self) -> None:
        """The charts of the custom-scalars page."""
        charts = {title: ["Multiline", [tags]] for title, tags in _CHARTS.items()}
        self._writer.add(custom_scalars({"metvae": charts}))

    def begin_session(self, values: Mapping[str, str | float], results: Sequence[str], first: Sequence[str]) -> None:
        """The run's row in the HPARAMS table, in this run's own events (`add_hparams` would make a second run).

        values: the columns; TensorBoard takes those of one run for all
        results: names of the numbers that `end_session` may give
        first: the columns that are shown without being asked for; TensorBoard shows five
        """
        experiment, start, _ = hparams(dict(values), dict.fromkeys(f"{FINAL}{name}" for name in results))
        _put_first(experiment, first)
        for summary in (experiment, start):
            self._writer.add(summary)

    def end_session(self, step: int, results: Mapping[str, float]) -> None:
        """The last numbers of the run, as scalars `final/<name>`; the row is that of a run that succeeded."""
        self.scalars(step, {f"{FINAL}{name}": value for name, value in results.items()})
        _, _, end = hparams({}, {})
        self._writer.add(end)

    def _add(self, *values: Summary.Value, step: int) -> None:
        self._writer.add(Summary(value=values), step)

    def flush(self) -> None:
        """Write what is waiting."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()

    def _new(self, step: int, name: str) -> bool:
        """Whether this is not there from before the resume: the process may have died between an event and its
        checkpoint.
        """
        return step != self._resumed_at or name not in self._there


def _put_first(experiment: Summary, names: Sequence[str]) -> None:
    """Mark columns as those in which runs differ: TensorBoard sorts them before all others."""
    data = experiment.value[0].metadata.plugin_data
    content = plugin_data_pb2.HParamsPluginData.FromString(data.content)  # pyright: ignore[reportAttributeAccessIssue]
    for info in content.experiment.hparam_infos:
        info.differs = info.name in names
    data.content = content.SerializeToString()


def _histogram(values: Tensor) -> HistogramProto:
    """Of float64 values on the CPU. `add_histogram` has 1500 bins of all scales, which takes ten times as long."""
    low, high = values.min().item(), values.max().item()
    # Bins are apart from each other also where the values are not.
    room = max(0.0, 1e-6 * max(abs(low), abs(high), 1e-6) - (high - low)) / 2
    counts = torch.histc(values, _BINS, low - room, high + room)
    limits = torch.linspace(low - room, high + room, _BINS + 1, dtype=torch.float64)
    return HistogramProto(
        min=low,
        max=high,
        num=len(values),
        sum=values.sum().item(),
        sum_squares=values.square().sum().item(),
        bucket_limit=limits.tolist(),
        bucket=[0.0, *counts.tolist()],  # limits are right ends: what lies left of the first is one too
    )


def _png(image: Tensor) -> Summary.Image:
    """An image (C, H, W), packed less tightly than `add_image` does, in half the time."""
    channels, height, width = image.shape
    pixels = (image.clamp(0, 1) * 255).round().byte().cpu().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG", compress_level=2)
    return Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=file.getvalue())


def _is_of_the_whole(tag: str) -> bool:
    return tag in _WHOLE or tag.startswith((FINAL, "_hparams_/"))


def verbatim(text: str) -> str:
    """Markdown that shows the lines as they are."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested keys to dotted ones; what is no plain value becomes text."""
    flat: dict[str, str | int | float | bool] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat
