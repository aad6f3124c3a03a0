"""What `metvae train` adds to its bare iterations: data, logs, progress and checks between iterations.

The loop of a run (`Trainer.epoch`, with TensorBoard, metrics.csv and the batches of an epoch in its order) and the
bare iterations of `contenders.py` take turns; a block is a whole number of log intervals. Validation and checkpoints
come once per epoch and are in neither. The command is then run once, in a process of its own, by its own clock.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.contenders import NEVER, Case, Machine, NotMeasuredError, Run, make_contender, training, words_of
from benchmarks.measuring import Budget, Neighbours, take_turns
from benchmarks.rows import is_noisy
from metvae_cli.build import build_experiment
from metvae_cli.commands.hydra_entry import composed_alone
from metvae_cli.commands.train_run import make_trainer
from metvae_cli.plain_config import plain
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.tensorboard import Board
from metvae_cli.tracking.tracker import RunTracker
from metvae_cli.training.course import carry_out
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.trainer import Trainer


@contextmanager
def whole_loop(case: Case, machine: Machine, folder: Path) -> Iterator[Trainer]:
    """The trainer of a run in `folder` with all that reports of it."""
    still = ["optimizer.lr=1e-8", f"trainer.max_epochs={NEVER}", f"trainer.checkpoint_seconds={NEVER}"]
    experiment = build_experiment(plain(composed_alone("train", [*words_of(case, machine), *still])), [])
    with (
        closing(Board(folder, None)) as board,
        RunTracker(board, MetricsFile(folder / "metrics.csv", 0), dict, NEVER) as tracker,
    ):
        yield make_trainer(experiment, folder, tracker, Interruption())


def epochs(trainer: Trainer) -> Run:
    """Iterations through the loop of the run."""

    def run(count: int) -> None:
        last = trainer.state.iteration + count
        trainer.settings = dataclasses.replace(trainer.settings, max_iterations=last)
        while trainer.state.iteration < last:
            carry_out(trainer.epoch(), trainer.answer)
            if trainer.state.batch >= trainer.num_batches:
                trainer.state.epoch, trainer.state.batch = trainer.state.epoch + 1, 0

    return run


def measure_loop(case: Case, machine: Machine, budget: Budget, iterations: int) -> dict[str, object]:
    """Milliseconds per iteration bare, through the loop, and by the clock of a command of so many iterations."""
    with TemporaryDirectory() as place, whole_loop(case, machine, Path(place)) as trainer:
        runs = {"bare": training(make_contender(case, machine)), "loop": epochs(trainer)}
        neighbours = Neighbours()
        times = take_turns(runs, budget, multiple=trainer.settings.log_every)
        busy = neighbours.cores()
    bare, loop = times["bare"].median, times["loop"].median
    command, total = run_command(case, machine, iterations)
    return {
        "net": case.net,
        "method": case.method,
        "steps": case.steps,
        "bare_ms": bare,
        "loop_ms": loop,
        "above_percent": 100 * (loop / bare - 1),
        "command_iterations": iterations,
        "command_ms": command,
        "command_seconds": total,
        "neighbours": busy,
        "noisy": is_noisy(times.values(), busy),
    }


def run_command(case: Case, machine: Machine, iterations: int) -> tuple[float, float]:
    """`metvae train` once: milliseconds per iteration by its own clock, and seconds from start to end."""
    with TemporaryDirectory() as place:
        words = [
            *words_of(case, machine),
            f"trainer.max_iterations={iterations}",
            "trainer.test_data=10",
            "trainer.test_samples=10",
            f"hydra.run.dir={place}/run",
        ]
        start = time.perf_counter()
        command = [sys.executable, "-m", "metvae_cli.cli", "train", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        if done.returncode:
            raise NotMeasuredError(f"metvae train ended with status {done.returncode}: {last_line(done.stderr)}")
        total = time.perf_counter() - start
        summary = json.loads((Path(place) / "run" / "summary.json").read_text(encoding="utf-8"))
    return 1000 * summary["seconds"] / summary["iterations"], total


def last_line(text: str) -> str:
    """What a command said at the end."""
    return (text.strip().splitlines() or ["nothing was said"])[-1]


HEAD = (
    f"{'net':6}{'method':10}{'K':>3}{'bare ms':>9}{'loop ms':>9}{'above':>8}"
    f"{'command: ms':>13}{'iterations':>12}{'s':>7}"
)


def line(row: dict[str, object]) -> str:
    """The row on the screen."""
    return (
        f"{row['net']:6}{row['method']:10}{row['steps']:3}{row['bare_ms']:9.2f}{row['loop_ms']:9.2f}"
        f"{row['above_percent']:+7.1f}%{row['command_ms']:13.2f}"
        f"{row['command_iterations']:12}{row['command_seconds']:7.1f}{' ~' if row['noisy'] else ''}"
    )
