"""The figure of a study of posteriors: how far from it the encoder's draw is, and where the chain carries it."""

import statistics
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.study_plan import Study
from benchmarks.study_records import Record, of_cell


def posterior_figure(study: Study, records: Sequence[Record]) -> Figure:
    """KL to the posterior (nats) of each row, settings side by side; means over seeds."""
    measured = [setting for setting in study.settings if any(_measured(records, setting, row) for row in study.rows)]
    figure, axes = plt.subplots(1, len(measured), figsize=(2.5 + 4.5 * len(measured), 4.5), squeeze=False)
    for axis, setting in zip(axes[0], measured, strict=True):
        _panel(axis, study, records, setting)
    marks = [Line2D([], [], marker="o", linestyle="", markerfacecolor=face, color="C0") for face in ("none", "C0")]
    figure.legend(marks, ["encoder's draw", "chain's end"], loc="outside upper center", ncols=2, fontsize=8)
    figure.set_layout_engine("constrained")
    return figure


def _panel(axis: Axes, study: Study, records: Sequence[Record], setting: str) -> None:
    rows = [row for row in study.rows if _measured(records, setting, row)][::-1]
    for place, row in enumerate(rows):
        found = _measured(records, setting, row)
        start, end = (statistics.fmean(one["posterior"][key] for one in found) for key in ("kl_start", "kl_end"))
        axis.plot(start, place, "o", color="C0", markerfacecolor="none")
        if end != start:  # a row with a chain
            axis.annotate("", (end, place), (start, place), arrowprops={"arrowstyle": "-", "color": "0.7"})
            axis.plot(end, place, "o", color="C0")
    axis.set_yticks(range(len(rows)), rows)
    axis.set(title=setting, xlabel="KL to the posterior (nats)")
    axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
    axis.grid(axis="x", alpha=0.3)


def _measured(records: Sequence[Record], setting: str, row: str) -> list[Record]:
    return [one for one in of_cell(records, setting, row) if one.get("posterior")]
