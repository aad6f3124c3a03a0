"""Groups by everything but the seed, with labels of what differs; filters; names that a person guesses."""

from pathlib import Path

import pytest

from metvae_cli.comparison.filters import matching, parse
from metvae_cli.comparison.groups import Group, group_runs
from metvae_cli.comparison.names import resolve
from metvae_cli.comparison.rows import find_baseline, ordered, shares
from metvae_cli.comparison.runs import Run, find
from metvae_cli.errors import ConfigError
from tests.comparison.written import write_run

NONE = {"sampler": "none"}


def grouped(folder: Path, *by: str) -> list[Group]:
    return group_runs(find([folder])[0], by)


def labels(folder: Path, *by: str) -> list[str]:
    return [group.label for group in grouped(folder, *by)]


def test_seeds_are_one_group_and_other_choices_another(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"hmc{seed}", seed, typed=["sampler=hmc"])
        write_run(tmp_path / f"none{seed}", seed, choices=NONE, settings={"sampler.num_steps": 0}, typed=["sampler=x"])
    groups = grouped(tmp_path)
    assert [group.label for group in groups] == ["sampler=hmc", "sampler=none"]
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1], [0, 1]]


def test_a_key_below_a_choice_is_compared_among_those_with_that_choice(tmp_path: Path) -> None:
    write_run(tmp_path / "0", typed=["sampler=hmc"])
    write_run(tmp_path / "1", settings={"sampler.step_size.initial": 0.5}, typed=["sampler.step_size.initial=0.5"])
    write_run(tmp_path / "2", choices=NONE, settings={"sampler.num_steps": 0})
    assert labels(tmp_path) == [
        "sampler=hmc sampler.step_size.initial=0.1",
        "sampler=hmc sampler.step_size.initial=0.5",
        "sampler=none",
    ]


def test_what_was_not_typed_is_shown_only_where_it_tells_runs_apart(tmp_path: Path) -> None:
    slow = {"optimizer.lr": 0.0001, "trainer.max_epochs": 9}
    write_run(tmp_path / "0", choices={"experiment": "quick"}, typed=["experiment=quick"])
    write_run(tmp_path / "1", choices={"experiment": "slow"}, settings=slow, typed=["experiment=slow"])
    assert labels(tmp_path) == ["experiment=quick", "experiment=slow"]
    write_run(tmp_path / "2", choices={"experiment": "slow"}, settings={**slow, "optimizer.lr": 0.1})
    assert labels(tmp_path) == [
        "experiment=quick optimizer.lr=0.001",
        "experiment=slow optimizer.lr=0.0001",
        "experiment=slow optimizer.lr=0.1",
    ]


def test_what_changes_no_number_makes_no_group(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0)
    write_run(tmp_path / "1", 1, settings={"trainer.log_every": 7, "resume": "x"})
    assert labels(tmp_path) == ["sampler=hmc objective=metvae"]


def test_by_pools_everything_else_and_repeated_seeds_are_known(tmp_path: Path) -> None:
    for number, rate in enumerate((0.1, 0.2)):
        write_run(tmp_path / f"a{number}", 3, settings={"optimizer.lr": rate})
        write_run(tmp_path / f"b{number}", number, choices=NONE, settings={"optimizer.lr": rate})
    groups = grouped(tmp_path, "sampler")
    assert [group.label for group in groups] == ["sampler=hmc", "sampler=none"]
    assert [group.repeated_seeds for group in groups] == [[3], []]
    assert labels(tmp_path, "lr") == ["optimizer.lr=0.1", "optimizer.lr=0.2"]
    with pytest.raises(ConfigError, match=r"--by=samplr: unknown; did you mean sampler\?"):
        grouped(tmp_path, "samplr")


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    for steps in (10, 9, 1):
        write_run(tmp_path / str(steps), settings={"sampler.num_steps": steps})
    assert labels(tmp_path) == ["sampler.num_steps=1", "sampler.num_steps=9", "sampler.num_steps=10"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("sampler=hmc", [0, 1, 2]),
        ("sampler=h*", [0, 1, 2]),
        ("sampler=hmc,none", [0, 1, 2, 3]),
        ("sampler!=hmc", [3]),
        ("seed<2", [0, 1]),
        ("seed >= 2", [2, 3]),
        ("seed==1", [1]),
        ("lr=1e-3", [0, 2, 3]),
        ("optimizer.lr>0.05", [1]),
        ("status=finished", [0, 1, 3]),
        ("nll<20", [0]),
        ("val/bound!=-30", [2]),
        ("folder=*/1", [1]),
        ("target!=banana", [0, 1, 2, 3]),
    ],
)
def test_filters(tmp_path: Path, condition: str, expected: list[int]) -> None:
    write_run(tmp_path / "0", 0, metrics={"test/nll": 10.0})
    write_run(tmp_path / "1", 1, settings={"optimizer.lr": 0.1})
    write_run(tmp_path / "2", 2, status="failed")
    write_run(tmp_path / "3", 3, choices=NONE)
    write_run(tmp_path / "other" / "4", 4, choices={"target": "banana"})
    runs = [run for run in matching(find([tmp_path])[0], [parse(condition)]) if run.seed != 4]
    assert [run.seed for run in runs] == expected


@pytest.mark.parametrize("text", ["sampler", "=hmc", "sampler=", "seed<many", "<3", ""])
def test_a_bad_filter_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--filter={text}: .*"):
        parse(text)


def test_names_may_be_short_but_not_ambiguous() -> None:
    known = ["val/bound", "test/bound", "test/nll", "sampler.num_steps", "test/log_likelihood"]
    assert resolve("nll", known, "--metric") == "test/nll"
    assert resolve("num_steps", known, "--by") == "sampler.num_steps"
    assert resolve("log-likelihood", known, "--metric") == "test/log_likelihood"
    with pytest.raises(ConfigError, match="--metric=bound: could be test/bound, val/bound"):
        resolve("bound", known, "--metric")
    with pytest.raises(ConfigError, match=r"--metric=test/nl: unknown; did you mean test/nll\?"):
        resolve("test/nl", known, "--metric")
    with pytest.raises(ConfigError, match=r"--by=num_step: unknown; did you mean sampler.num_steps\?"):
        resolve("num_step", known, "--by")


def with_bounds(folder: Path, bounds: dict[str, list[float]]) -> list[Group]:
    for name, values in bounds.items():
        for seed, value in enumerate(values):
            metrics = {"val/bound": value, "seconds": -value}
            write_run(folder / f"{name}{seed}", seed, choices={"sampler": name}, metrics=metrics)
    write_run(folder / "none", choices={"sampler": "zero"}, status="failed")
    return grouped(folder)


def test_the_best_comes_first_and_what_has_no_number_last(tmp_path: Path) -> None:
    groups = with_bounds(tmp_path, {"a": [-3.0, -5.0], "b": [-2.0, -1.0], "c": [-9.0]})

    def order(key: str, *, reverse: bool = False) -> str:
        known = {"val/bound", "seconds"}
        return "".join(group.values["sampler"][0] for group in ordered(groups, key, known, reverse=reverse))

    assert order("val/bound") == order("bound") == order("seconds") == "bacz"
    assert order("val/bound", reverse=True) == "cabz"
    assert order("label") == order("sampler") == "abcz"
    assert order("sampler", reverse=True) == "zcba"
    write_run(tmp_path / "more", choices={"sampler": "d"}, settings={"sampler.extra": 1})
    groups = grouped(tmp_path)
    assert order("sampler.extra", reverse=True)[0] == order("sampler.extra")[0] == "d"
    with pytest.raises(ConfigError, match=r"--sort=secnds: unknown; did you mean seconds\?"):
        order("secnds")


def test_a_baseline_may_be_named_by_its_label_its_values_or_a_part(tmp_path: Path) -> None:
    groups = with_bounds(tmp_path, {"hmc": [-3.0], "hmc_partial": [-2.0]})
    assert find_baseline(groups, "sampler=hmc").label == "sampler=hmc"
    assert find_baseline(groups, "hmc_partial").label == "sampler=hmc_partial"
    assert find_baseline(groups, "hmc").label == "sampler=hmc"
    assert find_baseline(groups, "partial").label == "sampler=hmc_partial"
    with pytest.raises(ConfigError, match="--paired=hm: could be 'sampler=hmc', 'sampler=hmc_partial'; say more"):
        find_baseline(groups, "hm")
    with pytest.raises(ConfigError, match="--paired=iwae: no such method; there are 'sampler=hmc'"):
        find_baseline(groups, "iwae")
    with pytest.raises(ConfigError, match=r"--paired=sampler=hmcc: no such method; did you mean sampler=hmc\?$"):
        find_baseline(groups, "sampler=hmcc")


def test_what_was_made_to_matter_is_found_and_the_other_is_not(tmp_path: Path) -> None:
    for seed in range(3):
        for i, rate in enumerate((0.1, 0.2, 0.4)):
            for steps in (1, 2):
                bound = -30 + 5 * i + 0.1 * ((seed * 7 + steps * 5 + i * 3) % 4)
                settings = {"optimizer.lr": rate, "sampler.num_steps": steps}
                write_run(tmp_path / f"{seed}{i}{steps}", seed, settings=settings, metrics={"val/bound": bound})
    found = {share.key: share for share in shares(grouped(tmp_path), "val/bound")}
    assert list(found) == ["optimizer.lr", *[key for key in found if key != "optimizer.lr"]]
    assert found["optimizer.lr"].share > 0.99
    assert found["sampler.num_steps"].share < 0.01
    assert found["seed"].share < 0.01
    assert found["optimizer.lr"].levels[0][0] == "0.4"


def test_runs_without_configuration_are_in_no_group() -> None:
    assert group_runs([Run(Path("x"), "failed")]) == []
