"""Searches: sweeps whose jobs are the trials of a study, killed, resumed, made wider, pruned, and read afterwards."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from metvae_cli.commands.hydra_launch import Launching
from metvae_cli.search.study import Search
from tests.endings import jobs_of, status, times
from tests.runs import infer, metvae
from tests.searches import LR, PRUNED, SEARCH, SMALL, WORDS, check_pruned, trials, tried, value


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `sweep`, a search of four trials that was let run to its end."""
    folder = tmp_path_factory.mktemp("four")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert metvae("train", "-m", *WORDS, "hydra.sweeper.n_trials=4", "hydra.sweep.dir=sweep") == 0
    return folder


def test_each_trial_is_a_job(four: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = four / "sweep"
    assert {path.name for path in sweep.iterdir() if not path.is_dir()} == {"study.db", "sweep.json"}
    for job, trial in zip(jobs_of(sweep), trials(sweep), strict=True):
        assert (status(job), value(job)) == ("finished", trial.value)
        assert job.name.startswith(f"{trial.number:02d}_optimizer.lr=0.0")
        assert job.name.endswith(f",sampler={trial.params['sampler']}")
        config = json.loads((job / "manifest.json").read_text())["config"]
        assert config["optimizer"]["lr"] == trial.params["optimizer.lr"]  # all of its digits
    assert metvae("compare", str(sweep)) == 0
    table = capsys.readouterr().out
    assert all(f"optimizer.lr={trial.params['optimizer.lr']}" in table for trial in trials(sweep))
    assert "not started" not in table


@pytest.mark.slow
def test_a_search_is_made_wider_and_ends_where_a_wide_one_does(
    four: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metvae("train", "-m", *WORDS, "hydra.sweeper.n_trials=2", "hydra.sweep.dir=sweep") == 0
    sweep = here / "sweep"
    before = times(sweep / jobs_of(sweep)[0].name)
    capsys.readouterr()
    assert metvae("train", "-m", "sweep.resume=sweep", "hydra.sweeper.n_trials=4") == 0
    printed = capsys.readouterr()
    assert times(jobs_of(sweep)[0]) == before
    assert tried(sweep) == tried(four / "sweep")
    best = max(jobs_of(sweep), key=value)
    assert f"best       {value(best):.3f}  {best.name}" in printed.out
    assert f"optimizer.lr={trials(sweep)[int(best.name[:2])].params['optimizer.lr']} sampler=" in printed.out
    assert "sweep: 4 finished" in printed.out
    assert "sweep.resume" not in printed.out
    assert "optuna" not in printed.err.lower().replace(SEARCH, "")
    everything = times(sweep)
    assert metvae("train", "sweep.resume=sweep") == 0  # still four
    assert times(sweep).keys() == everything.keys()
    assert len(trials(sweep)) == 4


@pytest.mark.parametrize(
    "killed",
    [
        pytest.param("before its job", marks=pytest.mark.slow),
        "while it ran",
        pytest.param("before it was told", marks=pytest.mark.slow),
    ],
)
def test_a_trial_that_was_cut_off_is_none_lost_and_none_doubled(
    killed: str, four: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: Any) -> None:
        raise RuntimeError("killed")

    launch, tell = Launching.launch, Search.tell
    with monkeypatch.context() as patch:
        if killed == "before it was told":
            patch.setattr(Search, "tell", lambda self, n, *rest: gone() if n == 2 else tell(self, n, *rest))
        else:
            patch.setattr(Launching, "launch", lambda self, batch, n: gone() if n == 2 else launch(self, batch, n))
        words = (*WORDS, "hydra.sweeper.n_trials=4", "hydra.sweep.dir=sweep")
        assert metvae("train", "-m", *words) == 1
        assert "not every job could be run: RuntimeError: killed" in capsys.readouterr().err
    sweep = here / "sweep"
    assert [trial.state.name for trial in trials(sweep)] == ["COMPLETE", "COMPLETE", "RUNNING"]
    if killed == "while it ran":
        job = sweep / jobs_of(four / "sweep")[2].name
        shutil.copytree(four / "sweep" / job.name, job)
        (job / "status.json").write_text('{"status": "running", "reason": "", "time": ""}')
    before = times(jobs_of(sweep)[-1])
    assert metvae("train", "-m", "sweep.resume=sweep") == 0
    assert tried(sweep) == tried(four / "sweep")
    assert [job.name for job in jobs_of(sweep)] == [job.name for job in jobs_of(four / "sweep")]
    if killed == "before it was told":
        assert times(jobs_of(sweep)[2]) == before
    if killed == "while it ran":
        assert len(json.loads((jobs_of(sweep)[2] / "manifest.json").read_text())["starts"]) == 2


def test_a_trial_that_fails_costs_no_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*SMALL, SEARCH, "optimizer.lr=1e-2,-1", "hydra.sweeper.n_trials=4", "hydra.sweep.dir=sweep")
    assert metvae("train", "-m", *words) == 1
    sweep = here / "sweep"
    expected = {"0.01": "COMPLETE", "-1": "FAIL"}
    assert [trial.state.name for trial in trials(sweep)] == [expected[t.params["optimizer.lr"]] for t in trials(sweep)]
    assert {status(job) for job in jobs_of(sweep)} == {"finished", "failed"}
    printed = capsys.readouterr()
    assert "optimizer.lr=-1: must" in printed.out.replace("│", "")
    assert "best " in printed.out
    assert "sweep.resume" not in printed.out
    before = times(sweep)
    assert metvae("train", "-m", "sweep.resume=sweep") == 1  # what failed has been counted
    assert times(sweep).keys() == before.keys()


@pytest.mark.slow
def test_a_bad_learning_rate_is_pruned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*SMALL, SEARCH, *PRUNED, "hydra.sweeper.n_trials=6", "hydra.sweep.dir=sweep")
    assert metvae("train", "-m", *words) == 0
    sweep = here / "sweep"
    check_pruned(sweep)
    printed = capsys.readouterr()
    assert "sweep: 4 finished, 2 pruned" in printed.out
    assert "pruned after epoch 1" in printed.err
    assert metvae("compare", "sweep", "--format", "csv") == 0
    assert metvae("compare", "sweep") == 0
    assert "pruned" in capsys.readouterr().out
    pruned = next(job for job in jobs_of(sweep) if status(job) == "pruned")
    before = times(pruned)
    assert metvae("train", "sweep.resume=sweep", "hydra.sweeper.n_trials=7") == 0
    assert times(pruned) == before
    shutil.copytree(pruned, here / "alone")
    assert metvae("train", "resume=alone") == 0  # no search asks for it any more
    assert status(here / "alone") == "finished"


def test_a_search_of_infer(here: Path) -> None:
    words = ("-m", SEARCH, "optimizer.lr=interval(1e-3,1e-2)", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=sweep")
    assert infer(*words, "hydra.sweeper.pruner=median") == 0
    assert [value(job) for job in jobs_of(here / "sweep")] == [trial.value for trial in trials(here / "sweep")]
    assert all(len(trial.intermediate_values) == 2 for trial in trials(here / "sweep"))


def test_a_resume_needs_the_study_and_the_same_words(
    four: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(four / "sweep", here / "sweep")
    for words, said in (
        (("sweep.resume=sweep", "hydra.sweeper.sampler=random"), "was started with other words"),
        (("sweep.resume=sweep", "hydra.sweeper.n_trials=0"), "must be at least 1"),
        (("hydra.sweep.dir=sweep", SEARCH, LR), "holds a run already"),
    ):
        before = times(here)
        assert metvae("train", "-m", *words) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
        assert times(here) == before
    (here / "sweep" / "study.db").unlink()
    assert metvae("train", "-m", "sweep.resume=sweep") == 2
    assert "study.db is missing" in capsys.readouterr().err.splitlines()[-1]
    assert not (here / "sweep" / "study.db").exists()


def test_a_damaged_study_is_refused_in_one_line_and_left_as_it_is(
    four: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(four / "sweep", here / "sweep")
    study = here / "sweep" / "study.db"
    whole = study.read_bytes()

    def refused() -> None:
        capsys.readouterr()
        assert metvae("train", "-m", "sweep.resume=sweep", "hydra.sweeper.n_trials=5") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "study.db: cannot be opened" in line

    for content in (b"no data base at all" * 500, whole[:100] + bytes(len(whole) - 100)):
        study.write_bytes(content)
        refused()
        assert study.read_bytes() == content
    study.unlink()
    study.mkdir()
    refused()
    assert list(study.iterdir()) == []
    study.rmdir()
    (here / "outside").write_bytes(b"precious" * 1000)
    study.symlink_to(here / "outside")
    refused()
    assert (here / "outside").read_bytes() == b"precious" * 1000
