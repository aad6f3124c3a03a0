"""Runs that meet numbers that are none: what is told, where, and what stays as it was."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metvae_cli.training.checkpoint import load_checkpoint, save_checkpoint
from metvae_cli.training.trainer import Trainer
from tests.faults.methods import METHODS, SPOILS, all_finite, ending, spoil_batches, table, train
from tests.runs import metvae
from tests.training.training import BATCHES


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_that_fails_says_why_where_it_is_looked_for(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status, one line, its status, its log, the table of `metvae compare`."""
    assert train(*METHODS["vae"], "hydra.run.dir=runs/good") == 0
    spoil_batches(monkeypatch, SPOILS["one datum"], lambda number: number >= BATCHES)
    capsys.readouterr()
    assert train(*METHODS["vae"], "seed=1", "trainer.max_bad_steps=4", "hydra.run.dir=runs/bad") == 1
    said = capsys.readouterr().err
    reason = "4 consecutive steps had a loss or gradient that was not finite: lower optimizer.lr or sampler.step_size"
    assert [line for line in said.splitlines() if line.startswith("metvae: error: ")] == [
        f"metvae: error: {reason} (the whole story: {here / 'runs/bad/train.log'})"
    ]
    assert "Traceback" not in said
    status = ending(here / "runs/bad")
    assert (status["status"], status["reason"]) == ("failed", f"RunError: {reason}")
    log = (here / "runs/bad/train.log").read_text()
    assert log.count("loss or gradient is not finite; step skipped") == 4
    assert reason in log
    assert not (here / "runs/bad/summary.json").exists()
    assert all_finite(load_checkpoint(here / "runs/bad/checkpoints/best.pt"))
    assert metvae("compare", "runs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("runs/bad" in line and "failed" in line and "4 consecutive steps" in line for line in lines)


def test_a_validation_that_is_no_number_ends_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures, histograms, the table and the plot live with it, and summary.json is JSON."""
    step = Trainer.step

    def poisoned(self: Trainer, batch: Any) -> None:
        step(self, batch)
        for parameter in self.parameters:
            if self.state.iteration == BATCHES - 1:
                parameter.data.add_(math.nan)
            if self.state.iteration == BATCHES:
                parameter.data.fill_(0.01)

    monkeypatch.setattr(Trainer, "step", poisoned)
    words = ("trainer.picture_every=1", "trainer.log_every=1", "trainer.max_epochs=3", "hydra.run.dir=run")
    assert train(*METHODS["lmcvae"], *words) == 0
    assert [math.isfinite(float(row["val/bound"])) for row in table(here / "run")] == [False, True, True]
    summary = json.loads((here / "run/summary.json").read_text(), parse_constant=pytest.fail)
    assert (summary["bad_steps"], summary["best_epoch"]) == (1, 3)
    assert all_finite(load_checkpoint(here / "run/checkpoints/best.pt"))
    assert metvae("compare", "run", "--plot", "curves.png") == 0
    board = EventAccumulator(str(here / "run"))
    board.Reload()
    assert [event.value for event in board.Scalars("train/bad_steps")][-1] == 1


@pytest.fixture
def with_a_bad_weight(here: Path) -> Path:
    """A finished run whose last checkpoint, not the best one, holds a NaN."""
    assert train(*METHODS["vae"], "hydra.run.dir=run") == 0
    last = here / "run/checkpoints/last.pt"
    content = load_checkpoint(last)
    name = next(name for name in content["model"] if name.startswith("decoder"))
    content["model"][name][0] = math.nan
    save_checkpoint(last, content)
    return here / "run"


def test_a_resume_from_weights_that_are_no_numbers_is_refused_and_goes_on_as_the_error_says(
    with_a_bad_weight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a step is skipped: with few enough of them the run would end as a finished one."""
    before = {path: path.read_bytes() for path in with_a_bad_weight.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert metvae("train", "resume=run", "trainer.max_epochs=3", "trainer.max_bad_steps=100") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "resume=run: last.pt: model.decoder" in line
    assert "remove it, to go on from best.pt" in line
    assert {path: path.read_bytes() for path in with_a_bad_weight.rglob("*") if path.is_file()} == before
    (with_a_bad_weight / "checkpoints/last.pt").unlink()
    assert metvae("train", "resume=run", "trainer.max_epochs=3") == 0
    assert all_finite(load_checkpoint(with_a_bad_weight / "checkpoints/last.pt"))


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_weights_that_are_no_numbers_are_not_measured(
    command: str, with_a_bad_weight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(with_a_bad_weight.parent.rglob("*"))
    capsys.readouterr()
    assert metvae(command, "run=run", "checkpoint=last", "hydra.run.dir=found") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "run=run checkpoint=last: model.decoder" in line
    assert "set checkpoint=best" in line
    assert sorted(with_a_bad_weight.parent.rglob("*")) == before


@pytest.mark.parametrize("fails", [True, False], ids=["for good", "for a moment"])
def test_a_seed_that_goes_bad_leaves_those_beside_it(
    fails: bool, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of one seed are NaN at the end of the first epoch; the other one is its own run, to rounding."""
    step = Trainer.step

    def poisoned(self: Trainer, batch: Any) -> None:
        step(self, batch)
        if self.seed == 0 and self.state.iteration in (BATCHES - 1, BATCHES):
            for parameter in self.parameters:
                parameter.data.fill_(math.nan if fails or self.state.iteration == BATCHES - 1 else 0.01)

    monkeypatch.setattr(Trainer, "step", poisoned)
    words = (*METHODS["lmcvae"], "trainer.max_bad_steps=3")
    assert train(*words, "trainer.replicas=2", "hydra.run.dir=both") == (1 if fails else 0)
    assert "Traceback" not in capsys.readouterr().err
    assert ending(here / "both")["status"] == ("failed" if fails else "finished")
    assert ending(here / "both/seed_0")["status"] == ("failed" if fails else "finished")
    assert ending(here / "both/seed_1")["status"] == "finished"
    if fails:
        assert "3 consecutive steps" in ending(here / "both/seed_0")["reason"]
        assert "seed 0: 3 consecutive steps" in ending(here / "both")["reason"]
    assert math.isnan(float(table(here / "both/seed_0")[0]["val/bound"]))
    assert train(*words, "seed=1", "hydra.run.dir=own") == 0
    for one, other in zip(table(here / "both/seed_1"), table(here / "own"), strict=True):
        for name in ("train/bound", "val/bound", "bad_steps"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-5)
    assert metvae("compare", "both") == 0
    assert ("failed" in capsys.readouterr().out) == fails
