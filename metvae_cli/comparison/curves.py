"""`--plot`: curves against cost, with bands over seeds, and what mattered; matplotlib is imported when it is drawn."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metvae_cli.comparison.foreign import read_bounded
from metvae_cli.comparison.groups import Group
from metvae_cli.comparison.rows import Comparison, values_by_seed
from metvae_cli.comparison.runs import Run
from metvae_cli.comparison.statistics import Share
from metvae_cli.comparison.tables import heading
from metvae_cli.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COSTS = ("decoder_evaluations", "seconds", "epoch")
_CURVE = "val/bound"
# What is measured once at the end of a run, the first that there is.
_ENDS = ("test/log_likelihood", "importance/nats", "log_normalizer", "bound")
_MOST_GROUPS = 10
_GRID = 200
_LOG_FROM = 5.0
_MOST_KEYS = 8
_WIDE_LABEL = 70
_NOTHING = 0.01  # height of what is left out
_STROKES = ("-", "--", "-.", ":")

Values = NDArray[np.float64]
# Of each group, by its label, and of each of its finished runs: costs and bound.
Curves = Mapping[str, Sequence[Mapping[str, Values]]]


class Band(NamedTuple):
    """A mean over seeds with its standard deviation, on a grid of cost."""

    cost: Values
    mean: Values
    deviation: Values


def write_plot(groups: Sequence[Group], comparison: Comparison, path: Path) -> None:
    """Draw the groups in their order, as many as can be told apart, into a PNG, PDF or SVG.

    Raises:
        ConfigError: no run has curves, or the file cannot be written
    """
    curves = {group.label: [read_curve(run) for run in group.finished] for group in groups}
    drawn = [group for group in groups if any(curves[group.label])]
    if not drawn:
        raise ConfigError(f"--plot={path}: no finished run has a metrics.csv with {_CURVE}; nothing to draw")
    figure = draw(drawn, curves, comparison)
    try:
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"--plot={path}: cannot be written ({error.strerror})") from error


def read_curve(run: Run) -> dict[str, Values]:
    """Bound and costs of a run, validation by validation; empty where they are not there."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_bounded(run.folder / "metrics.csv").decode(), newline="")))
        table = np.array([[float(row[name]) for name in (*_COSTS, _CURVE)] for row in rows])
        table = table[np.isfinite(table).all(axis=1)] if len(table) else table
    except (OSError, KeyError, TypeError, ValueError, csv.Error):  # no such file or column, or a line cut short
        return {}
    return dict(zip((*_COSTS, _CURVE), table.T, strict=True)) if len(table) else {}


def band(curves: Sequence[Mapping[str, Values]], cost: str) -> Band:
    """Mean and spread over the curves where all of them are known, between their points along straight lines."""
    low = max(curve[cost][0] for curve in curves)
    high = max(min(curve[cost][-1] for curve in curves), low)
    points = np.unique(np.concatenate([curve[cost] for curve in curves]))
    grid = points[(points >= low) & (points <= high)]
    if len(grid) > _GRID:
        grid = np.linspace(low, high, _GRID)
    values = np.stack([np.interp(grid, curve[cost], curve[_CURVE]) for curve in curves])
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(grid)
    return Band(grid, values.mean(axis=0), deviation)


def draw(groups: Sequence[Group], curves: Curves, comparison: Comparison) -> "Figure":
    """Curves of the bound, what was measured at the end, and the bars of what mattered."""
    from matplotlib.figure import Figure

    shown = groups[:_MOST_GROUPS]
    end = next((name for name in _ENDS if any(values_by_seed(group, name) for group in shown)), None)
    bars = {name: found for name, found in comparison.shares.items() if _worth_drawing(found)}
    wide = max(len(group.label) for group in shown) > _WIDE_LABEL
    heights = [3.4 * (1 + (end is not None)), 0.5 + 0.2 * len(shown) / (1 if wide else 2), 2.9 * bool(bars)]
    figure = Figure(figsize=(13, sum(heights)), dpi=100, layout="constrained")
    parts = figure.subfigures(3, 1, squeeze=False, height_ratios=[*heights[:2], max(heights[2], _NOTHING)])[:, 0]
    panels = parts[0].subplots(1 + (end is not None), 3, sharex="col", sharey="row", squeeze=False)
    for column, cost in enumerate(_COSTS):
        _draw_bounds(panels[0, column], shown, curves, cost)
        _finish(panels[0, column], f"{_CURVE} (nats)", first=column == 0)
        if end is not None:
            _draw_ends(panels[1, column], shown, end, curves, cost)
            _finish(panels[1, column], f"{heading(end)} (nats)", first=column == 0)
        panels[-1, column].set_xlabel({"epoch": "epochs"}.get(cost, heading(cost)))
    for column, (metric, found) in enumerate(list(bars.items())[:2]):
        _draw_shares(parts[2].add_subplot(1, 2, column + 1), metric, found)
    hidden = len(groups) - len(shown)
    title = "mean over seeds ± standard deviation"
    figure.suptitle(f"{title}; the first {len(shown)} of {len(groups)} methods" if hidden else title, fontsize=11)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    parts[1].legend(handles, labels, loc="center", ncols=1 if wide else 2, frameon=False, handlelength=3.5, fontsize=9)
    return figure


def _draw_bounds(axes: "Axes", groups: Sequence[Group], curves: Curves, cost: str) -> None:
    """One line per group, with a band where there are several seeds."""
    lows, highs, ends = [], [], []
    for i, group in enumerate(groups):
        known = [curve for curve in curves[group.label] if curve]
        if not known:
            continue
        found = band(known, cost)
        label = f"{group.label}  ({len(known)} seed{'s' if len(known) > 1 else ''})"
        stroke = _STROKES[i % len(_STROKES)]  # curves may lie on each other
        mark = "o" if len(found.cost) < 2 else ""
        axes.plot(found.cost, found.mean, color=f"C{i}", label=label, linewidth=1.6, marker=mark, linestyle=stroke)
        axes.fill_between(
            found.cost,
            found.mean - found.deviation,
            found.mean + found.deviation,
            color=f"C{i}",
            alpha=0.18,
            linewidth=0,
        )
        # Where training begins is far below, and would press flat what is to be seen.
        late = found.mean[len(found.mean) // 4 :]
        lows.append(float(np.nanmin(late - found.deviation[len(found.mean) // 4 :])))
        highs.append(float(np.nanmax(found.mean + found.deviation)))
        ends.append(float(found.cost[-1]))
    if lows and math.isfinite(min(lows)) and max(highs) > min(lows):
        margin = 0.06 * (max(highs) - min(lows))
        axes.set_ylim(min(lows) - margin, max(highs) + margin)
    _scale(axes, ends)


def _draw_ends(
    axes: "Axes",
    groups: Sequence[Group],
    metric: str,
    curves: Curves,
    cost: str,
) -> None:
    """One point per group, with bars in both directions, over a faint dot per run."""
    for i, group in enumerate(groups):
        pairs = [
            (curve[cost][-1], run.metrics[metric])
            for run, curve in zip(group.finished, curves[group.label], strict=True)
            if curve and metric in run.metrics
        ]
        if not pairs:
            continue
        points = np.array(pairs)
        spread = points.std(axis=0, ddof=1) if len(points) > 1 else np.zeros(2)
        middle = points.mean(axis=0)
        axes.scatter(points[:, 0], points[:, 1], s=12, color=f"C{i}", alpha=0.35, linewidths=0)
        axes.errorbar(*middle, yerr=spread[1], xerr=spread[0], fmt="o", color=f"C{i}", capsize=3, markersize=6)


def _draw_shares(axes: "Axes", metric: str, shares: Sequence[Share]) -> None:
    """A bar per key: its share of the variance, and within it what chance does not give."""
    found = list(reversed(shares[:_MOST_KEYS]))
    places = np.arange(len(found))
    axes.barh(places, [100 * share.share for share in found], color="0.85", label="share")
    adjusted = [100 * max(share.adjusted or 0.0, 0.0) for share in found]
    axes.barh(places, adjusted, height=0.5, color="0.35", label="adjusted for the number of values")
    axes.set_yticks(places, [share.key for share in found])
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of variance explained")
    axes.set_title(f"what mattered for {heading(metric)}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _worth_drawing(shares: Sequence[Share]) -> bool:
    """Whether there is more than one key to tell apart, the seed not counted."""
    return sum(share.key != "seed" for share in shares) > 1


def _scale(axes: "Axes", ends: Sequence[float]) -> None:
    """A logarithmic axis where methods differ by much in cost."""
    from matplotlib.ticker import EngFormatter

    if ends and min(ends) > 0 and max(ends) / min(ends) > _LOG_FROM:
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, not 20000


def _finish(axes: "Axes", quantity: str, *, first: bool) -> None:
    if first:
        axes.set_ylabel(quantity)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
