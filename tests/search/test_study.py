"""The study itself, on functions whose maximum is known: no training is needed to search."""

import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from metvae_cli.errors import ConfigError
from metvae_cli.search import space
from metvae_cli.search.pruning import Pruning
from metvae_cli.search.settings import SearchSettings, require_optuna
from metvae_cli.search.space import Parameter
from metvae_cli.search.study import Search

SPACE = (
    space.interval("lr", 1e-5, 1e-1, log=True),
    space.grid("dim", range(2, 16), 1, log=False),
    space.choice("kind", ["a", "b"]),
)


def hill(values: Mapping[str, Any]) -> float:
    """Its top, 0, is at lr=1e-3 and dim=7; `kind` hardly matters."""
    return -((math.log10(values["lr"]) + 3) ** 2) - (values["dim"] - 7) ** 2 / 20 + 1e-3 * (values["kind"] == "a")


def address(folder: Path) -> str:
    return f"sqlite:///{folder}/study.db"


def opened(folder: Path, existing: Any = "allowed", **settings: Any) -> Search:
    return Search(address(folder), SearchSettings(**settings), SPACE, existing)


def searched(
    folder: Path, trials: int, value: Callable[[Mapping[str, Any]], float] = hill, **settings: Any
) -> list[dict[str, Any]]:
    """What was tried, each trial by a process of its own, as far as the study can tell."""
    tried = []
    for _ in range(trials):
        search = opened(folder, **settings)
        proposed = search.propose()
        search.tell(proposed.number, "complete", value(proposed.values))
        tried.append(dict(proposed.values))
    return tried


def in_one_go(folder: Path, trials: int, **settings: Any) -> list[dict[str, Any]]:
    search, tried = opened(folder, **settings), []
    for _ in range(trials):
        proposed = search.propose()
        search.tell(proposed.number, "complete", hill(proposed.values))
        tried.append(dict(proposed.values))
    return tried


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="search", storage=address(folder)).trials


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[], Path]:
    """Makes a new folder whenever it is called."""

    def make() -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return folder

    return make


def test_what_is_proposed_gets_better_than_by_chance(folders: Callable[[], Path]) -> None:
    late = {
        sampler: statistics.fmean(map(hill, in_one_go(folders(), 30, sampler=sampler)[15:]))
        for sampler in ("tpe", "random")
    }
    assert late["tpe"] > 0.6 * late["random"]  # both are below the top, which is 0


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_that_is_opened_anew_for_each_trial_goes_the_same_way(
    folders: Callable[[], Path], sampler: str
) -> None:
    straight = in_one_go(folders(), 13, sampler=sampler)
    assert searched(folders(), 13, sampler=sampler) == straight
    assert in_one_go(folders(), 1, sampler=sampler, seed=1) != straight[:1]
    assert len({values["lr"] for values in straight}) == 13


def test_what_came_out_decides_what_is_tried_next(folders: Callable[[], Path]) -> None:
    upside_down = searched(folders(), 12, lambda values: -hill(values))
    straight = in_one_go(folders(), 12)
    assert upside_down[:10] == straight[:10]  # at random
    assert all(one != other for one, other in zip(upside_down[10:], straight[10:], strict=True))


def test_a_trial_that_was_cut_off_while_it_was_proposed_is_completed(folders: Callable[[], Path]) -> None:
    cut, straight = folders(), folders()
    in_one_go(cut, 11)
    in_one_go(straight, 11)
    expected = opened(straight).propose()
    search = opened(cut)
    search._space = SPACE[:1]
    assert search.propose().values.keys() == {"lr"}
    (found,) = opened(cut).begun()
    assert found == expected
    assert len(trials_of(cut)) == 12


def test_trials_that_run_are_known_with_their_directories(tmp_path: Path) -> None:
    search = opened(tmp_path)
    first, second, third = (search.propose() for _ in range(3))
    assert len({first.values["lr"], second.values["lr"], third.values["lr"]}) == 3
    search.place(first.number, "00_x")
    search.tell(second.number, "failed")
    again = opened(tmp_path, "required")
    assert again.begun() == [first._replace(directory="00_x"), third]
    again.tell(first.number, "complete", -1.0)
    again.tell(third.number, "pruned")
    assert opened(tmp_path).begun() == []
    states = [trial.state.name for trial in trials_of(tmp_path)]
    assert (states, len(again)) == (["COMPLETE", "FAIL", "PRUNED"], 3)
    assert again.best() == ("00_x", first.values, -1.0)


def test_the_best_is_among_those_that_ended_well(tmp_path: Path) -> None:
    search = opened(tmp_path)
    assert search.best() is None
    for outcome, value in (("failed", None), ("complete", -3.0), ("complete", -2.0), ("complete", -2.0)):
        proposed = search.propose()
        search.place(proposed.number, str(proposed.number))
        search.tell(proposed.number, outcome, value)  # pyright: ignore[reportArgumentType]
    best = search.best()
    assert best is not None
    assert (best[0], best[2]) == ("2", -2.0)


def test_the_key_that_matters_is_found(folders: Callable[[], Path]) -> None:
    folder = folders()
    in_one_go(folder, 9, sampler="random")
    assert opened(folder).importances() == {}  # too few
    in_one_go(folder, 15, sampler="random")
    weights = opened(folder).importances()
    assert sum(weights.values()) == pytest.approx(1)
    assert min(weights, key=lambda key: weights[key]) == "kind"
    flat = folders()
    search = opened(flat)
    for _ in range(10):
        search.tell(search.propose().number, "complete", 1.0)
    assert search.importances() == {}


def test_nothing_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    search = opened(tmp_path)
    search.tell(search.propose().number, "failed")
    search.tell(search.propose().number, "complete", 1.0)
    assert capfd.readouterr() == ("", "")


def test_a_study_is_neither_mixed_up_nor_made_unasked(folders: Callable[[], Path]) -> None:
    folder = folders()
    opened(folder, "refused")
    with pytest.raises(ConfigError, match=r"study_name=search: .* has it already"):
        opened(folder, "refused")
    with pytest.raises(ConfigError, match=r"study_name=other: .* has no such study"):
        opened(folder, "required", study_name="other")
    with pytest.raises(ConfigError, match=r"storage=sqlite:.*: cannot be opened"):
        opened(folder / "missing")


# Stopping runs


def reported(folder: Path, curve: list[float], **settings: Any) -> tuple[int, int]:
    """The number of a new trial with these bounds, and after how many of them it stopped."""
    search = opened(folder, **settings)
    number = search.propose().number
    ask = Pruning(address(folder), SearchSettings(**settings), number)
    for epoch, bound in enumerate(curve, 1):
        if ask(epoch, bound):
            search.tell(number, "pruned")
            return number, epoch
    search.tell(number, "complete", curve[-1])
    return number, len(curve)


@pytest.mark.parametrize("after", [1, 3])
def test_the_median_pruner_stops_what_is_behind(tmp_path: Path, after: int) -> None:
    settings: dict[str, Any] = {"pruner": "median", "n_startup_trials": 2, "prune_after": after}
    good, bad = [-3.0, -2.0, -1.5, -1.2, -1.0], [-9.0] * 5
    assert [reported(tmp_path, curve, **settings)[1] for curve in (good, bad, good, bad)] == [5, 5, 5, after]
    assert [trial.state.name for trial in trials_of(tmp_path)][-2:] == ["COMPLETE", "PRUNED"]
    assert trials_of(tmp_path)[3].intermediate_values == dict.fromkeys(range(1, after + 1), -9.0)


@pytest.mark.slow
def test_hyperband_stops_some_and_none_stops_none(folders: Callable[[], Path]) -> None:
    curves = [[-float(trial)] * 9 for trial in range(8)]
    hyperband, none = folders(), folders()
    lengths = [reported(hyperband, curve, pruner="hyperband", prune_after=1)[1] for curve in curves]
    assert lengths[0] == 9
    assert min(lengths) < 9
    assert {reported(none, curve, pruner="none")[1] for curve in curves} == {9}


def test_a_run_that_is_killed_and_resumed_hears_the_same_again(tmp_path: Path) -> None:
    settings = SearchSettings(pruner="median", n_startup_trials=1, prune_after=1)
    reported(tmp_path, [-3.0, -2.0], pruner="median", n_startup_trials=1, prune_after=1)
    number = opened(tmp_path).propose().number
    assert not Pruning(address(tmp_path), settings, number)(1, -2.5)
    assert not Pruning(address(tmp_path), settings, number)(1, -2.5)
    assert Pruning(address(tmp_path), settings, number)(2, -2.4)
    assert Pruning(address(tmp_path), settings, number)(3, 0.0)  # it had been told to stop
    assert trials_of(tmp_path)[number].intermediate_values == {1: -2.5, 2: -2.4}


def test_a_study_that_does_not_answer_stops_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not Pruning(address(tmp_path / "missing"), SearchSettings(pruner="median"), 0)(1, -1.0)
    assert "the study does not answer" in caplog.text


# What may be said


def test_what_keys_may_be() -> None:
    floats = space.interval("x", 1e-4, 1e-2, log=True)
    integers = space.interval("x", 1, 5, log=False)
    steps = space.grid("x", range(15, 1, -4), -4, log=False)
    assert (floats.ends(), integers.ends(), steps.ends()) == ([1e-4, 1e-2], [1, 5], [3, 15])
    assert space.grid("x", [0.1, 0.3, 0.5], 0.2, log=False).ends() == [0.1, 0.5]
    assert space.choice("x", ["a", "b", "a"]).ends() == ["a", "b"]
    assert floats.word(0.1 + 0.2) == "x=0.30000000000000004"
    assert integers.word(3) == "x=3"
    assert space.choice("x", ["[1,2]"]).word("[1,2]") == "x=[1,2]"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: space.interval("x", 2, 1, log=False), "smaller number first"),
        (lambda: space.interval("x", 0.0, 1.0, log=True), "begin above 0"),
        (lambda: space.grid("x", [], 1, log=False), "holds nothing"),
        (lambda: space.grid("x", [1, 3], 2, log=True), "steps of 1"),
        (lambda: space.grid("x", [0.5, 1.0], 0.5, log=True), "write tag"),
    ],
)
def test_what_keys_may_not_be(make: Callable[[], Parameter], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_trials": 0},
        {"seed": -1},
        {"n_startup_trials": -1},
        {"prune_after": 0},
        {"max_batch_size": 0},
        {"storage": "x"},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        SearchSettings(**wrong)


def test_optuna_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    require_optuna("x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'metvae\[optuna\]'"):
        require_optuna("x")
