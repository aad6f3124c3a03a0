"""Searches that are small, and what they leave."""

import json
from pathlib import Path
from typing import Any

import optuna

from tests.endings import jobs_of, status
from tests.runs import TINY

SEARCH = "hydra/sweeper=optuna"

LR = "optimizer.lr=tag(log, interval(1e-4,1e-1))"

SMALL = (
    *TINY,
    "dataset=gaussian_toy",
    "likelihood=gaussian",
    "sampler.num_steps=1",
    "trainer.max_epochs=1",
    "trainer.test_samples=1",
    "trainer.picture_every=0",
)

WORDS = (*SMALL, SEARCH, LR, "sampler=hmc,langevin", "hydra.sweeper.n_startup_trials=2")

PRUNED = (
    "trainer.max_epochs=3",
    "hydra.sweeper.pruner=median",
    "hydra.sweeper.n_startup_trials=1",
    "hydra.sweeper.prune_after=1",
    "optimizer.lr=1e-2,1e-7",
    "hydra.sweeper.sampler=random",
    "hydra.sweeper.seed=2",  # draws good, good, bad, good, good, bad, good
)


def trials(sweep: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{sweep}/study.db").trials


def tried(sweep: Path) -> list[tuple[dict[str, Any], float | None, str]]:
    """Of each trial what was tried, what came out, and how it ended."""
    return [(trial.params, trial.value, trial.state.name) for trial in trials(sweep)]


def value(job: Path) -> float:
    return json.loads((job / "status.json").read_text())["value"]


def check_pruned(sweep: Path) -> None:
    """The bad learning rate was pruned, with its checkpoint and its curve kept, and the good one never."""
    good, bad = ("finished", "0.01"), ("pruned", "1e-07")
    found = [(status(job), job.name.partition("=")[2]) for job in jobs_of(sweep)]
    assert found == [good, good, bad, good, good, bad]
    for number in (2, 5):
        job, trial = jobs_of(sweep)[number], trials(sweep)[number]
        assert trial.state.name == "PRUNED"
        assert (job / "checkpoints" / "best.pt").exists()
        assert not (job / "summary.json").exists()
        rows = (job / "metrics.csv").read_text().splitlines()
        assert len(rows) - 1 == len(trial.intermediate_values) == 1
        assert value(job) == trial.intermediate_values[1]
