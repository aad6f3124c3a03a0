"""A trainer on little data, and a tracker that notes what it is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metvae_cli.build import build_experiment
from metvae_cli.errors import Interrupted
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.training.checkpoint import load_checkpoint
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.trainer import Trainer
from tests.runs import TINY, configuration

SMALL = (*TINY, "dataset.batch_size=64", "dataset.num_test=1377", "dataset.num_valid=100", "trainer.log_every=2")
BATCHES = 5  # 1797 - 1377 - 100 = 320 data


class Notes:
    """A tracker. at: called with the kind and the number of each report."""

    def __init__(self, folder: Path, position: int = 0, at: Callable[[str, int], None] | None = None) -> None:
        self.metrics = MetricsFile(folder / "metrics.csv", position)
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.rows: list[dict[str, float]] = []
        self.pictured: list[int] = []
        self.iterations = 0
        self.at = at or (lambda kind, number: None)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.seen.append((step, values))

    def log_weights(self, step: int, values: Tensor) -> None:
        self.at("validation", step)

    def row(self, values: dict[str, float]) -> None:
        self.metrics.append(values)
        self.rows.append(values)

    def pictures(self, step: int) -> None:
        self.pictured.append(step)

    def progress(self, epoch: int, done: int, total: int) -> None:
        self.iterations = epoch * total + done
        self.at("iteration", self.iterations)

    def position(self) -> int:
        return self.metrics.position()


def make(folder: Path, *words: str, at: Callable[[str, int], None] | None = None, resume: bool = False) -> Trainer:
    """A trainer in `folder`, resumed from its last checkpoint if asked."""
    folder.mkdir(exist_ok=True)
    experiment = build_experiment(configuration(*SMALL, *words), [])
    content = load_checkpoint(folder / "last.pt") if resume else None
    notes = Notes(folder, content["state"]["log_position"] if content else 0, at)
    trainer = Trainer(experiment.learner, experiment.settings, experiment.seed, folder, notes, Interruption())
    if content:
        trainer.restore(content)
    return trainer


def notes(trainer: Trainer) -> Notes:
    """The tracker of a trainer that `make` made."""
    assert isinstance(trainer.tracker, Notes)
    return trainer.tracker


def interrupt(folder: Path, kind: str, number: int, *words: str, resume: bool = False) -> None:
    """Train until a signal comes with a report."""

    def at(reported: str, count: int) -> None:
        if (reported, count) == (kind, number):
            trainer.exchange.interruption.signum = 15

    trainer = make(folder, *words, at=at, resume=resume)
    try:
        trainer.fit()
    except Interrupted:
        return
    raise AssertionError("was not interrupted")


def whole(trainer: Trainer) -> dict[str, Any]:
    """All that training changes, without what the clock and the log decide."""
    learner, state = trainer.learner, vars(trainer.state)
    timed = ("seconds", "log_position")
    return {
        "model": learner.model.state_dict(),
        "sampler": learner.sampler.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scheduler": learner.scheduler.state_dict(),
        "state": {name: value for name, value in state.items() if name not in timed},
        "random": torch.get_rng_state(),
    }


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Names of the entries that are not equal bit by bit."""
    if isinstance(first, dict):
        names = first.keys() | second.keys()
        return [line for name in names for line in differences(first[name], second[name], f"{where}.{name}")]
    if isinstance(first, list | tuple):
        pairs = enumerate(zip(first, second, strict=True))
        return [line for index, (a, b) in pairs for line in differences(a, b, f"{where}.{index}")]
    equal = torch.equal(first, second) if isinstance(first, Tensor) else first == second
    return [] if equal else [where]
