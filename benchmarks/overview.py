"""One figure over all studies: where which method is ahead of a plain VAE, as benchmarks/overview.yaml lists them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import OmegaConf

from benchmarks.study_plan import load_study
from benchmarks.study_records import Record, likelihood, records_of, unit_of

OVERVIEW = Path(__file__).parent / "overview.yaml"
LEVEL = 0.1  # nats
_NAMED = 3  # of those that are first
_MARKS = ("o", "P", "x", "^", "v", "<", "D", "s")
_TICKS = (-100, -10, -1, 0, 1, 10, 100)

Gains = dict[str, dict[int, float]]  # of a method, for each seed
Regimes = dict[str, Gains]


@dataclass(frozen=True)
class Overview:
    """reference: the row that others are held against. methods: names of the rows of each. panels: regimes of each."""

    title: str
    text: str
    reference: str
    methods: dict[str, list[str]]
    panels: dict[str, dict[str, tuple[str, str]]]

    def section(self) -> str:
        """Its part of the page."""
        return f"## {self.title}\n\n{self.text.strip()}\n\n![{self.title}](results/overview.png)\n"


def load_overview() -> Overview:
    """What is drawn."""
    content = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(OVERVIEW)))
    panels = {
        panel: {label: tuple(place) for label, place in found.items()} for panel, found in content["panels"].items()
    }
    return Overview(**{**content, "panels": panels})


def gains(overview: Overview, setting: str, records: Sequence[Record]) -> Gains:
    """Likelihood of each method less the reference's (nats), for each seed that both have; of the reference 0."""
    nats = {unit: best[0] for one in records if (unit := unit_of(one)).setting == setting and (best := likelihood(one))}
    base = {unit.seed: value for unit, value in nats.items() if unit.row == overview.reference}
    found = {overview.reference: dict.fromkeys(base, 0.0)}
    for method, rows in overview.methods.items():
        found[method] = {
            unit.seed: value - base[unit.seed] for unit, value in nats.items() if unit.row in rows and unit.seed in base
        }
    return {method: of_seeds for method, of_seeds in found.items() if of_seeds}


def first(overview: Overview, found: Gains) -> str:
    """Which are the best, or level with the best on the seeds that both have, and how far it is above the reference."""
    means = {method: statistics.fmean(of_seeds.values()) for method, of_seeds in found.items()}
    best = max(means, key=lambda method: means[method])
    level = sorted((name for name in found if _behind(found[best], found[name]) < LEVEL), key=lambda name: -means[name])
    if len(level) == len(found):
        return "all level"
    named = ", ".join(level[:_NAMED]) + (f" and {len(level) - _NAMED} more" if len(level) > _NAMED else "")
    return named if overview.reference in level else f"{named}: {means[best]:+.1f}"


def _behind(best: dict[int, float], other: dict[int, float]) -> float:
    """How far below, on average over common seeds; infinitely without any, which tells nothing."""
    common = best.keys() & other.keys()
    return statistics.fmean(best[seed] - other[seed] for seed in common) if common else math.inf


def write_overview(path: Path) -> None:
    """Draw all regimes that have been measured; of none, nothing."""
    overview = load_overview()
    if panels := _measured(overview):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure = _figure(overview, panels)
        figure.savefig(path, dpi=90, metadata={"Software": None})
        plt.close(figure)


def _measured(overview: Overview) -> dict[str, Regimes]:
    panels: dict[str, Regimes] = {}
    for panel, regimes in overview.panels.items():
        for label, (name, setting) in regimes.items():
            found = gains(overview, setting, records_of(load_study(name)))
            if len(found) > 1:
                panels.setdefault(panel, {})[label] = found
    return panels


def _figure(overview: Overview, panels: dict[str, Regimes]) -> Figure:
    heights = [len(regimes) + 1 for regimes in panels.values()]
    figure, axes = plt.subplots(
        len(panels), figsize=(11, 0.28 * sum(heights) + 1), height_ratios=heights, layout="constrained", squeeze=False
    )
    marks = [
        Line2D([], [], color=f"C{index}", marker=mark, linestyle="", alpha=0.8, label=method)
        for index, (method, mark) in enumerate(zip(overview.methods, _MARKS, strict=False))
    ]
    for axis, (panel, regimes) in zip(axes[:, 0], panels.items(), strict=True):
        axis.set_title(panel, fontsize=10)
        _panel(axis, overview, regimes, marks)
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), fontsize=9)
    return figure


def _panel(axis: Axes, overview: Overview, regimes: Regimes, marks: Sequence[Line2D]) -> None:
    """A line for each regime, and at its right end who is first."""
    axis.set_xscale("symlog", linthresh=1)
    for mark in marks:
        method = str(mark.get_label())
        places = {place: found[method] for place, found in enumerate(regimes.values()) if method in found}
        means = [statistics.fmean(of_seeds.values()) for of_seeds in places.values()]
        axis.plot(means, [*places], linestyle="", marker=mark.get_marker(), color=mark.get_color(), alpha=0.8)
    axis.axvline(0, color="0.4", linewidth=1)
    axis.set_ylim(len(regimes) - 0.5, -0.5)
    axis.set_yticks(range(len(regimes)), [*regimes], fontsize=9)
    axis.grid(alpha=0.4)
    axis.set_xlabel(f"test log-likelihood less that of {overview.reference} (nats)", fontsize=9)
    axis.set_xticks(_TICKS, [f"{tick:+d}" if tick else "0" for tick in _TICKS], fontsize=9)
    right = axis.twinx()
    right.set_ylim(axis.get_ylim())
    right.set_yticks(range(len(regimes)), [first(overview, found) for found in regimes.values()], fontsize=9)
