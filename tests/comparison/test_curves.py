"""Curves over seeds, and the picture that they make."""

from pathlib import Path

import numpy as np
import pytest

from metvae_cli.comparison.curves import band, draw, read_curve, write_plot
from metvae_cli.comparison.groups import group_runs
from metvae_cli.comparison.rows import Comparison, build_row, shares
from metvae_cli.comparison.runs import find
from metvae_cli.errors import ConfigError
from tests.comparison.written import write_run


def compared(folder: Path) -> Comparison:
    groups = group_runs(find([folder])[0])
    rows = tuple(build_row(group, ["val/bound"], None, 0.95) for group in groups)
    return Comparison(rows, ("val/bound",), None, {"val/bound": shares(groups, "val/bound")}, (), 0.95)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for seed in (0, 1, 2):
        for i, name in enumerate(("hmc", "none")):
            for rate in (0.1, 0.2):
                curve = [-40.0 + i, -35.0 + i + 0.3 * seed, -32.0 + i + 0.5 * seed]
                metrics = {"val/bound": curve[-1] + rate, "test/nll": -curve[-1]}
                folder = tmp_path / f"{name}{seed}{rate}"
                settings = {"optimizer.lr": rate}
                write_run(folder, seed, choices={"sampler": name}, settings=settings, metrics=metrics, curve=curve)
    return tmp_path


def test_a_band_is_mean_and_deviation_where_all_curves_are_known() -> None:
    first = {"seconds": np.array([1.0, 2.0, 4.0]), "val/bound": np.array([0.0, 1.0, 3.0])}
    second = {"seconds": np.array([1.5, 3.0]), "val/bound": np.array([4.0, 10.0])}
    found = band([first, second], "seconds")
    assert found.cost.tolist() == [1.5, 2.0, 3.0]
    ours, theirs = np.array([0.5, 1.0, 2.0]), np.array([4.0, 6.0, 10.0])
    assert found.mean == pytest.approx((ours + theirs) / 2)
    assert found.deviation == pytest.approx(np.std([ours, theirs], axis=0, ddof=1))


def test_the_picture_has_a_line_and_a_band_per_group_over_each_cost(written: Path) -> None:
    comparison = compared(written)
    groups = [row.group for row in comparison.rows]
    curves = {group.label: [read_curve(run) for run in group.finished] for group in groups}
    figure = draw(groups, curves, comparison)
    bounds, ends, bars = figure.axes[:3], figure.axes[3:6], figure.axes[6:]
    assert [len(axes.lines) for axes in bounds] == [4, 4, 4]
    assert [len(axes.collections) for axes in bounds] == [4, 4, 4]
    assert [len(axes.containers) for axes in ends] == [4, 4, 4]
    assert [axes.get_xlabel() for axes in ends] == ["decoder evaluations", "seconds", "epochs"]
    assert len(bars) == 1  # two keys, one metric
    assert {label.get_text() for label in bars[0].get_yticklabels()} == {"sampler", "optimizer.lr", "seed"}
    lines = {line.get_label(): line for line in bounds[2].lines}
    line = lines["sampler=none optimizer.lr=0.1  (3 seeds)"]
    assert np.asarray(line.get_ydata()) == pytest.approx([-39.0, -33.7, -30.5])


@pytest.mark.parametrize(("name", "start"), [("x.png", b"\x89PNG"), ("x.pdf", b"%PDF"), ("x.svg", b"<?xml")])
def test_the_file_is_what_its_name_says(written: Path, name: str, start: bytes) -> None:
    comparison = compared(written)
    write_plot([row.group for row in comparison.rows], comparison, written / name)
    content = (written / name).read_bytes()
    assert content.startswith(start)
    assert len(content) > 10_000


def test_runs_without_or_with_broken_curves_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0, curve=[-3.0, -2.0])
    write_run(tmp_path / "b", 1)
    write_run(tmp_path / "c", 2, curve=[-3.0])
    (tmp_path / "c" / "metrics.csv").write_text("epoch,seconds\n1,x\n")
    comparison = compared(tmp_path)
    groups = [row.group for row in comparison.rows]
    assert [bool(read_curve(run)) for run in groups[0].runs] == [True, False, False]
    write_plot(groups, comparison, tmp_path / "x.png")
    (tmp_path / "a" / "metrics.csv").unlink()
    with pytest.raises(ConfigError, match="nothing to draw"):
        write_plot(groups, comparison, tmp_path / "y.png")
