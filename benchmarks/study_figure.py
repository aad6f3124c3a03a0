"""The figure of a study, drawn from its records."""

import statistics
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from benchmarks.posterior_figure import posterior_figure
from benchmarks.study_plan import Study
from benchmarks.study_records import Record, difference, likelihood, of_cell, unit_of

_COSTS = ("decoder evaluations", "seconds of training")
_STROKES = ("-", "--", "-.", ":")
_MARKS = ("o", "x", "^")
_GRID = 100


def write_figure(study: Study, records: Sequence[Record], path: Path) -> None:
    """Draw a study: bounds against cost and likelihoods, a grid's gains over its first row, or posteriors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if study.figure == "posteriors":
        figure = posterior_figure(study, records)
    else:
        figure = _grid(study, records) if study.grid and not study.detail else _curves(study, records)
    # Without its date and version the file changes only where the picture does.
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def _color(index: int) -> str:
    return f"C{index % 10}"


def _dashes(index: int) -> str:
    return _STROKES[index // 10 % len(_STROKES)]


def _curves(study: Study, records: Sequence[Record]) -> Figure:
    """Validation bounds against decoder evaluations and seconds, and test likelihoods with their spread over seeds.

    Of a grid, curves are of the first and of the last setting that was measured, which stand above them.
    """
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained", width_ratios=(1, 1, 1.1))
    measured = [setting for setting in study.settings if any(one["setting"] == setting for one in records)]
    ends: list[float] = []
    for index, row in enumerate(study.rows):
        for column, (axis, setting) in enumerate(zip(axes[:2], (measured[0], measured[-1]), strict=True)):
            chosen = [one for one in records if unit_of(one)[:2] == (setting, row)]
            if found := [one for one in chosen if len(one.get("curve", ())) > 1]:
                cost, bound = mean_curve([one["curve"] for one in found], column)
                axis.plot(cost, bound, color=_color(index), linestyle=_dashes(index))
                ends.append(bound[-1])
    for axis, cost, setting in zip(axes[:2], _COSTS, (measured[0], measured[-1]), strict=True):
        axis.set(title=setting, xlabel=cost, ylabel="validation bound (nats)", xscale="log")
        if ends:  # what happens far below hides the rest
            axis.set_ylim(min(ends) - 0.5 * (max(ends) - min(ends)) - 0.5, max(ends) + 0.5)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k, not 2 x 10^5: such labels run into each other
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="x", labelsize=8)
    _likelihoods(axes[2], study, records)
    return figure


def mean_curve(curves: Sequence[Sequence[Sequence[float]]], column: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds of a bound against a cost, interpolated where all of them are known."""
    arrays = [np.asarray(one, dtype=float) for one in curves]
    start, end = max(one[0, column] for one in arrays), min(one[-1, column] for one in arrays)
    cost = np.geomspace(start, max(end, start), _GRID)
    return cost, np.mean([np.interp(cost, one[:, column], one[:, 2]) for one in arrays], axis=0)


def _likelihoods(axis: Axes, study: Study, records: Sequence[Record]) -> None:
    """A mark for each seed of each row that was measured; settings of a grid are told apart by their marks."""
    measured = {unit_of(one).row for one in records if likelihood(one)}
    rows = [(index, row) for index, row in enumerate(study.rows) if row in measured][::-1]
    for setting, mark in zip(study.settings, cycle(_MARKS), strict=False):
        label = setting  # on the first marks of a setting
        for place, (index, row) in enumerate(rows):
            found = [likelihood(one) for one in records if unit_of(one)[:2] == (setting, row)]
            if values := [best[0] for best in found if best]:
                axis.plot(values, [place] * len(values), mark, color=_color(index), alpha=0.7, label=label or None)
                label = ""
    axis.set_yticks(range(len(rows)), [f"{row} (dashed)" if _dashes(index) != "-" else row for index, row in rows])
    for text, (index, _) in zip(axis.get_yticklabels(), rows, strict=True):  # the legend of the curves beside it
        text.set_color(_color(index))
    axis.set(xlabel="test log-likelihood (nats)")
    axis.locator_params(axis="x", nbins=5)
    axis.grid(axis="x", alpha=0.3)
    if study.grid:
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


def _grid(study: Study, records: Sequence[Record]) -> Figure:
    """What rows gain over the first, on a scale that is linear up to one nat and logarithmic beyond."""
    figure, axis = plt.subplots(figsize=(max(7, 1.1 * len(study.grid) + 3), 4.5), layout="constrained")
    first, *others = study.rows
    gains = {(row, at): _gain(study, records, label, row) for row in others for at, label in enumerate(study.grid)}
    if any(gain and abs(gain[0]) > 1 for gain in gains.values()):  # before anything is drawn: margins depend on it
        axis.set_yscale("symlog", linthresh=1, subs=(2, 5))
        for ticks in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            ticks("{x:g}")
    for index, row in enumerate(others):
        shift = 0.7 * ((index + 0.5) / len(others) - 0.5)
        points = [(at + shift, *gain) for (label, at), gain in gains.items() if label == row and gain]
        if points:
            places, means, deviations = zip(*points, strict=True)
            mark = _MARKS[index % len(_MARKS)]
            axis.errorbar(places, means, deviations, fmt=mark, capsize=3, label=row, color=_color(index))
    axis.axhline(0, color="0.5", linewidth=1)
    for place in range(1, len(study.grid)):
        axis.axvline(place - 0.5, color="0.85", linewidth=1)
    axis.set_xticks(range(len(study.grid)), [*study.grid], rotation=20, ha="right")
    axis.grid(axis="y", which="both", alpha=0.3)
    axis.set(ylabel=f"test log-likelihood less that of {first} (nats)", xlim=(-0.5, len(study.grid) - 0.5))
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _gain(study: Study, records: Sequence[Record], setting: str, row: str) -> tuple[float, float] | None:
    """A row's gain over the first with the same seeds, and its deviation over seeds; of pairs, the error over data."""
    own, base = (of_cell(records, setting, label) for label in (row, next(iter(study.rows))))
    if study.paired:
        return difference(own, base)
    known = {one["seed"]: best[0] for one in base if (best := likelihood(one))}
    gains = [best[0] - known[one["seed"]] for one in own if one["seed"] in known and (best := likelihood(one))]
    if not gains:
        return None
    return statistics.fmean(gains), statistics.stdev(gains) if len(gains) > 1 else 0.0
