"""`metvae train trainer.replicas=R`: what it leaves in each directory, and what can be done with it."""

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from metvae_cli.commands import train_replicas
from metvae_cli.commands.sweep_plan import plan_sweep
from metvae_cli.training.checkpoint import load_checkpoint
from metvae_cli.training.course import Batch
from metvae_cli.training.device import SMALL as SMALL_NETWORK
from metvae_cli.training.trainer import Trainer
from tests.endings import jobs_of, status, times, wait_for_epoch
from tests.runs import TINY, files, metvae, start, train
from tests.searches import SEARCH, SMALL, trials
from tests.tracking.boards import hparams_of, steps_by_tag

TWO = ("trainer.replicas=2", "seed=4", "sampler.num_steps=1")
WITHOUT_NAMES = ("events.out", "projector")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plain_files(folder: Path) -> set[str]:
    return {name for name in files(folder) if not name.startswith(WITHOUT_NAMES)}


def summary(folder: Path) -> dict[str, float]:
    return json.loads((folder / "summary.json").read_text())


def test_each_seed_leaves_what_its_own_run_leaves(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*TWO, "hydra.run.dir=both") == 0
    said = capsys.readouterr()
    assert "mean ± sd" in said.out
    assert "(sd of 2 seeds)" in said.err
    assert "note: trainer.replicas=2: on a CPU side by side pays from 4" in said.err
    assert '-m "seed=range(4,6)"' in said.err
    for seed in (4, 5):
        assert train("sampler.num_steps=1", f"seed={seed}", f"hydra.run.dir=own_{seed}") == 0
        together, own = here / "both" / f"seed_{seed}", here / f"own_{seed}"
        assert plain_files(together) == plain_files(own)
        assert (together / ".hydra/config.yaml").read_text() == (own / ".hydra/config.yaml").read_text()
        words = [[str(word) for word in OmegaConf.load(run / ".hydra/overrides.yaml")] for run in (together, own)]
        assert set(words[0]) - set(words[1]) == {"hydra.run.dir=both"} & set(words[0])
        assert json.loads((together / "status.json").read_text())["status"] == "finished"
        assert json.loads((together / "manifest.json").read_text())["seed"] == seed
        ours, theirs = summary(together), summary(own)
        assert ours.keys() == theirs.keys()
        for name in ("val/bound", "test/nll", "test/bound", "iterations", "decoder_evaluations"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
        with (together / "metrics.csv").open() as first, (own / "metrics.csv").open() as second:
            for row, other in zip(csv.DictReader(first), csv.DictReader(second), strict=True):
                assert float(row["train/bound"]) == pytest.approx(float(other["train/bound"]), rel=1e-4)
        saved = [load_checkpoint(run / "checkpoints/last.pt") for run in (together, own)]
        assert torch.equal(saved[0]["random"]["torch"], saved[1]["random"]["torch"])
        assert torch.equal(saved[0]["random"]["numpy"][1], saved[1]["random"]["numpy"][1])
        assert saved[0].keys() == saved[1].keys()
        assert "epoch 1  train/bound" in (together / "train.log").read_text()
    assert summary(here / "both")["val/bound"] == pytest.approx(
        (summary(here / "both/seed_4")["val/bound"] + summary(here / "both/seed_5")["val/bound"]) / 2
    )


@pytest.mark.slow
def test_what_is_left_is_compared_evaluated_and_gone_on_with(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*TWO, "trainer.max_epochs=1", "hydra.run.dir=both") == 0
    capsys.readouterr()
    assert metvae("compare", "both", "--format=csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["runs"] for row in rows] == ["2"]
    assert metvae("evaluate", "run=both") == 2
    assert "name one, like seed_4" in capsys.readouterr().err
    assert metvae("sample", "run=both/seed_5") == 0
    brief = ("estimators=[importance]", "diagnostics=[]", "importance.num_samples=5", "importance.repeats=1")
    assert metvae("evaluate", "run=both/seed_5", *brief) == 0
    for seed in (4, 5):
        folder = here / f"both/seed_{seed}"
        assert steps_by_tag(folder)["val/bound"] == [summary(folder)["iterations"]]
        assert hparams_of(folder)["seed"] == seed
    assert train_on("both/seed_5", "trainer.max_epochs=2") == 0
    assert train_on("both", "trainer.max_epochs=3") == 0
    assert [summary(here / f"both/seed_{seed}")["epochs"] for seed in (4, 5)] == [3, 3]
    assert train("sampler.num_steps=1", "seed=5", "trainer.max_epochs=3", "hydra.run.dir=own") == 0
    assert summary(here / "both/seed_5")["val/bound"] == pytest.approx(summary(here / "own")["val/bound"], rel=1e-4)


def train_on(folder: str, *words: str) -> int:
    return metvae("train", f"resume={folder}", *words)


def test_a_seed_that_was_never_saved_begins_on_a_resume(here: Path) -> None:
    assert train(*TWO, "trainer.max_epochs=1", "hydra.run.dir=both") == 0
    shutil.rmtree(here / "both/seed_5")
    assert train_on("both", "trainer.max_epochs=2") == 0
    assert [summary(here / f"both/seed_{seed}")["epochs"] for seed in (4, 5)] == [2, 2]


def test_a_resume_with_nothing_left_repeats_the_table_and_leaves_the_seeds_alone(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*TWO, "trainer.max_epochs=1", "trainer.test_data=1", "hydra.run.dir=both") == 0
    assert json.loads((here / "both/seed_5/summary.json").read_text())["test/nll_se"] is None
    table, before = capsys.readouterr().out, [times(here / f"both/seed_{seed}") for seed in (4, 5)]
    assert "± nan" in table
    assert train_on("both") == 0
    assert capsys.readouterr().out == table
    assert [times(here / f"both/seed_{seed}") for seed in (4, 5)] == before


@pytest.mark.slow
def test_jobs_of_a_sweep_may_have_several_seeds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("trainer.replicas=2", "trainer.max_epochs=1", "hydra.sweep.dir=all")
    assert (
        metvae("train", *(word for word in TINY if "num_steps" not in word), *words, "-m", "sampler.num_steps=1,2") == 0
    )
    said = capsys.readouterr().out
    assert "2 finished" in said
    assert "validation bound, mean over seeds" in said
    found = sorted((here / "all").glob("*/seed_*/summary.json"))
    assert len(found) == 4
    assert metvae("compare", "all", "--format=csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["runs"] for row in rows] == ["2", "2"]


@pytest.mark.slow
def test_a_search_goes_by_the_mean_over_seeds(here: Path) -> None:
    words = (*SMALL, SEARCH, "optimizer.lr=interval(1e-4,1e-2)", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=sweep")
    assert metvae("train", "-m", *words, "trainer.replicas=2") == 0
    for job, trial in zip(jobs_of(here / "sweep"), trials(here / "sweep"), strict=True):
        each = [summary(job / f"seed_{seed}")["val/bound"] for seed in (0, 1)]
        assert trial.value == pytest.approx(sum(each) / 2)


def spoil(monkeypatch: pytest.MonkeyPatch, *seeds: int) -> None:
    """In runs of these seeds no step after the third is finite."""
    step = Trainer.step

    def spoiled(self: Trainer, batch: Batch) -> None:
        if self.seed in seeds and self.state.iteration == 2:
            self.parameters[0].data *= torch.nan
        step(self, batch)

    monkeypatch.setattr(Trainer, "step", spoiled)


def test_one_that_fails_leaves_the_others_and_begins_again_on_a_resume(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, 5)
        assert train(*TWO, "trainer.max_bad_steps=2", "hydra.run.dir=both") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("metvae: error: seed 5: 2 consecutive steps had a loss or gradient that was not finite")
    assert [status(here / "both" / name) for name in (".", "seed_4", "seed_5")] == ["failed", "finished", "failed"]
    assert "not finite" in json.loads((here / "both/seed_5/status.json").read_text())["reason"]
    assert "RunError" in (here / "both/seed_5/train.log").read_text()
    before = times(here / "both/seed_4")
    assert train_on("both") == 0
    assert times(here / "both/seed_4") == before
    assert train("sampler.num_steps=1", "seed=5", "hydra.run.dir=own") == 0
    assert summary(here / "both/seed_5")["val/bound"] == pytest.approx(summary(here / "own")["val/bound"], rel=1e-4)
    assert [status(here / "both" / name) for name in (".", "seed_4", "seed_5")] == ["finished"] * 3


def test_what_all_seeds_fail_of_is_said_once(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 4, 5)
    assert train(*TWO, "trainer.max_bad_steps=2", "hydra.run.dir=both") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("metvae: error: seeds 4, 5: 2 consecutive steps")
    assert error.count("2 consecutive steps") == 1
    assert status(here / "both") == "failed"


@pytest.mark.slow
def test_convolutional_seeds_whose_chains_are_computed_again_come_to_their_end(here: Path) -> None:
    words = [word for word in TINY if "hidden" not in word]
    conv = ("encoder=conv", "decoder=conv", "encoder.channels=[2,4]", "decoder.channels=[4,2]", "trainer.max_epochs=1")
    both = ("trainer.checkpoint_chain=true", "trainer.replicas=2", "hydra.run.dir=both")
    assert metvae("train", *words, *conv, *both) == 0
    assert metvae("train", *words, *conv, "seed=1", "hydra.run.dir=own") == 0
    assert summary(here / "both/seed_1")["val/bound"] == pytest.approx(summary(here / "own")["val/bound"], rel=1e-4)


def test_many_seeds_of_a_small_network_bring_no_note() -> None:
    assert train_replicas._slowness(4, 0, SMALL_NETWORK) == []
    assert "one after another" in train_replicas._slowness(3, 0, SMALL_NETWORK)[0]
    assert "keep a CPU busy" in train_replicas._slowness(8, 0, SMALL_NETWORK + 1)[0]


def test_seeds_that_lie_apart_are_no_obstacle(here: Path) -> None:
    def jobs(*words: str) -> int | None:
        return plan_sweep("train", ["-m", "hydra.sweep.dir=all", *words]).jobs

    assert jobs("trainer.replicas=2", "seed=4,0,2", "sampler.num_steps=1,2") == 6
    assert jobs("trainer.replicas=1,2", "seed=0,2") == 4
    assert jobs("seed=0,1") == 2


@pytest.mark.slow
def test_a_signal_saves_all_seeds(here: Path) -> None:
    process = start(here, "train", *TINY, *TWO, "trainer.max_epochs=500", "hydra.run.dir=both")
    try:
        wait_for_epoch(here / "both/seed_5", 1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGINT
    assert "go on with: metvae train resume=" in said
    places = [load_checkpoint(here / f"both/seed_{seed}/checkpoints/last.pt")["state"]["iteration"] for seed in (4, 5)]
    assert places[0] == places[1] > 0
    for folder in ("both", "both/seed_4", "both/seed_5"):
        assert json.loads((here / folder / "status.json").read_text())["status"] == "interrupted"
        assert not (here / folder / ".lock").exists()
    assert train_on("both", f"trainer.max_iterations={places[0] + 3}") == 0
    assert [summary(here / f"both/seed_{seed}")["iterations"] for seed in (4, 5)] == [places[0] + 3] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trainer.devices=2",), "trainer.replicas=2: runs side by side have one device"),
        (("trainer.precision=bf16-mixed",), "set trainer.precision=32-true"),
        (("trainer.profile=true",), "set trainer.profile=false"),
        (
            ("sampler=none", "objective=iwae", "objective.gradient=dreg", "sampler.num_steps=0"),
            "cannot be trained side by side (a hook on a gradient); train its seeds one by one",
        ),
        (("seed=4294967295",), "seed=4294967296: must lie between"),
        (("trainer.replicas=0",), "trainer.replicas=0: must be a whole number of at least 1"),
        (("trainer.replicas=-1",), "trainer.replicas=-1: must be a whole number of at least 1"),
        (("trainer.replicas=1.5",), "trainer.replicas=1.5: expected a whole number of at least 1"),
        (("trainer.replicas=abc",), "trainer.replicas=abc: expected a whole number of at least 1"),
        (("-m", "seed=0,1"), "seed 1 would be trained by two jobs; say seed=0,2"),
        (("-m", "trainer.replicas=1,3", "seed=0,2"), "seed 2 would be trained by two jobs; say seed=0,3"),
        (("-m", "trainer.replicas=3", "seed=range(4,14)", "sampler=hmc,langevin"), "say seed=range(4,34,3)"),
        (
            ("-m", "hydra/sweeper=optuna", "hydra.sweeper.pruner=median", "sampler=hmc,langevin"),
            "cannot stop one of several seeds side by side; set it to none, or trainer.replicas=1",
        ),
    ],
)
def test_what_cannot_be_done_side_by_side_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert train("trainer.replicas=2", *words) == 2
    found = capsys.readouterr().err.strip().splitlines()
    assert len(found) == 1
    assert said in found[0]
    assert files(here) == set()


def test_the_number_of_seeds_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("trainer.max_epochs=1", "hydra.run.dir=one") == 0
    assert train_on("one", "trainer.replicas=2") == 2
    assert "trainer.replicas=2: the number of seeds cannot be changed" in capsys.readouterr().err
    assert metvae("infer", "trainer.replicas=2") == 2
    assert "is for `metvae train`" in capsys.readouterr().err
