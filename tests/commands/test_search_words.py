"""What is said to a search: words that are refused, numbers that follow from others, and names."""

import json
from pathlib import Path

import pytest

from metvae_cli.commands import sweep_plan, sweep_search
from metvae_cli.commands.job_name import job_name
from metvae_cli.commands.sweep_plan import plan_search, plan_sweep
from tests.endings import status
from tests.runs import files, metvae, own_globals
from tests.searches import LR, SEARCH, SMALL


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((SEARCH,), ("nothing is left to search", "interval(")),
        ((SEARCH, LR, "hydra.sweeper.n_trails=3"), ("hydra.sweeper.n_trails: unknown key", "n_trials")),
        ((SEARCH, LR, "+hydra.sweeper.n_trails=3"), ("hydra.sweeper.n_trails: unknown key", "n_trials")),
        (("seed=0,1", "hydra.sweeper.n_trials=3"), ("add hydra/sweeper=optuna",)),
        ((LR,), ("add hydra/sweeper=optuna",)),
        ((SEARCH, LR, "hydra.sweeper.n_trials=0"), ("hydra.sweeper.n_trials=0: must be at least 1",)),
        ((SEARCH, LR, "hydra.sweeper.n_trials=many"), ("hydra.sweeper.n_trials=many: expected an integer",)),
        ((SEARCH, LR, "hydra.sweeper.sampler=tpo"), ("hydra.sweeper.sampler=tpo", "did you mean tpe?")),
        ((SEARCH, LR, "hydra.sweeper.storage=sqlite:////proc/x"), ("hydra.sweeper.storage=", "cannot be opened")),
        ((SEARCH, "seed=0,1"), ("seed=0,1: the best seed is no finding",)),
        ((SEARCH, LR, "sampler=hmc,hcm"), ("sampler=hcm", "did you mean hmc?")),
        ((SEARCH, "optimzer.lr=interval(0.1,1)"), ("optimzer.lr: unknown key", "optimizer.lr")),
        ((SEARCH, "optimizer.lr=interval(1,0.1)"), ("write the smaller number first",)),
        ((SEARCH, "optimizer.lr=tag(lgo, interval(0.1,1))"), ("tag lgo", "tag(log, interval(...))")),
        ((SEARCH, "sampler=tag(log, choice(hmc,langevin))"), ("tag log says nothing here",)),
    ],
)
def test_wrong_words_give_one_line_and_leave_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    assert metvae("train", "-m", *words) == 2
    printed = capsys.readouterr()
    assert all(part in printed.err for part in said)
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert files(here) == set()


def test_a_missing_optuna_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert metvae("train", "-m", SEARCH, LR) == 2
    assert "pip install 'metvae[optuna]'" in capsys.readouterr().err
    assert files(here) == set()


def test_a_stored_word_opens_no_data_base(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("hydra.sweeper.storage=sqlite:///x", "hydra.sweeper._target_=os.abort", "hydra/sweeper=mine"):
        (here / "sweep.json").write_text(json.dumps({"command": "train", "words": [SEARCH, LR, word]}))
        assert metvae("train", "sweep.resume=.") == 2
        assert f"{word} counts on the command line only" in capsys.readouterr().err
    assert files(here) == {"sweep.json"}


@pytest.mark.parametrize(
    ("words", "together", "processes"),
    [
        ((), 1, 0),
        (("hydra.sweeper.max_batch_size=3",), 3, 0),
        (("hydra/launcher=local_jobs", "hydra.launcher.n_jobs=3"), 3, 3),
        (("hydra/launcher=local_processes",), 1, 1),
        (("hydra/launcher=local_processes", "hydra.sweeper.max_batch_size=4"), 4, 4),
        (("hydra/launcher=slurm", "hydra.launcher.array_parallelism=5"), 5, 5),
    ],
)
def test_as_many_trials_at_a_time_as_run_side_by_side(
    words: tuple[str, ...], together: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_plan, "_cores", lambda: 8)
    monkeypatch.setenv("METVAE_STAMP", "now")
    with own_globals():
        plan = plan_sweep("train", ["-m", SEARCH, LR, *words])
    assert (plan.jobs, plan.batch, plan.processes) == (20, together, processes)


def test_a_launcher_is_given_numbers_without_a_gap() -> None:
    from metvae_cli.search.study import Proposed

    trials = [Proposed(number, {}, None) for number in (1, 2, 4, 7, 8)]
    runs = [[trial.number for trial in run] for run in sweep_search._successive(trials)]
    assert runs == [[1, 2], [4], [7, 8]]
    assert list(sweep_search._successive([])) == []


def test_another_command_or_sweeper_searches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert metvae("evaluate", "-m", SEARCH, "run=a,b") == 2
    assert "`metvae evaluate` has nothing to search for" in capsys.readouterr().err
    from omegaconf import OmegaConf

    assert plan_search("train", [], OmegaConf.create({"_target_": sweep_plan.BASIC_SWEEPER})) is None


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("optimizer.lr=0.0008629132190071859", "02_optimizer.lr=0.0008629"),
        ("optimizer.lr=1.2345678901e-05", "02_optimizer.lr=1.235e-05"),
        ("seed=4294967295", "02_seed=4294967295"),
        ("optimizer.lr=0.0001", "02_optimizer.lr=0.0001"),
    ],
)
def test_a_directory_is_named_by_a_number_one_can_read(word: str, name: str) -> None:
    assert job_name(2, [word], []) == name


def test_a_sweeper_without_a_sweep_searches_nothing_and_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "metvae: hydra/sweeper=optuna: nothing is searched without -m; one run is made\n"
    assert metvae("train", *SMALL, SEARCH, "hydra.run.dir=one", "trainer.max_iterations=1") == 0
    assert capsys.readouterr().err.count(line) == 1
    assert status(here / "one") == "finished"
    for words in (
        ("--cfg", "job", SEARCH),
        ("--help", SEARCH),
        (*SMALL, "trainer.max_iterations=1", "hydra/sweeper=basic"),
    ):
        metvae("train", *words)
        assert "nothing is searched" not in capsys.readouterr().err
