"""Sheets of text: what stands in each cell of the tables, whatever they are written as afterwards."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from metvae_cli.comparison.metrics import direction
from metvae_cli.comparison.rows import Comparison, Row
from metvae_cli.comparison.runs import FINISHED, PRUNED
from metvae_cli.comparison.statistics import Moments, Share
from metvae_cli.errors import printable

Spread = Literal["sd", "se", "ci"]
_FAILED = ("failed", "damaged", "killed")
_COUNTED = ("runs", "pruned", "failed", "unfinished")
_MANY_LEVELS = 3


@dataclass(frozen=True)
class Cell:
    """Text, and whether it is one of the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table. The first column is text, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def means_sheet(comparison: Comparison, spread: Spread) -> Sheet:
    """One row per group: how many runs, and mean and spread of each metric."""
    counts = [_counts([run.state for run in row.group.runs]) for row in comparison.rows]
    orphans = [run.state for run in comparison.problems if not run.configured]
    lost = _counts(orphans)
    shown = [place for place in range(len(_COUNTED)) if place == 0 or any(row[place] for row in [*counts, lost])]
    columns = ["method", *(_COUNTED[place] for place in shown), *comparison.metrics]
    columns = [heading(name) for name in columns]
    cells = {name: _metric_cells(comparison, name, spread) for name in comparison.metrics}
    rows = [
        (
            Cell(row.group.label),
            *(Cell(str(counts[i][place] or ("" if place else 0))) for place in shown),
            *(cells[name][i] for name in comparison.metrics),
        )
        for i, row in enumerate(comparison.rows)
    ]
    if orphans:
        blank = [Cell(str(lost[place] or ("" if place else 0))) for place in shown]
        rows.append((Cell("(ended before it was configured)"), *blank, *[Cell("")] * len(comparison.metrics)))
    title = f"mean ± {_spread_word(spread, comparison.confidence)} over seeds"
    return Sheet(title, tuple(columns), tuple(rows), _notes(comparison))


def differences_sheet(comparison: Comparison) -> Sheet | None:
    """Each group less the baseline on the same seeds; None without a baseline."""
    if comparison.baseline is None:
        return None
    rows = []
    others = [row for row in comparison.rows if row.differences]
    for row in others:
        counts = sorted({difference.pairs for difference in row.differences.values()})
        pairs = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        cells = [Cell(_difference(row, name)) for name in comparison.metrics]
        rows.append((Cell(row.group.label), Cell(pairs), *cells))
    percent = f"{100 * comparison.confidence:g} %"
    notes = [f"! the {percent} interval leaves zero out; each by itself, not corrected for their number"]
    unpaired = len(comparison.rows) - len(others) - 1
    if unpaired:
        notes.append(f"{unpaired} more have no seed in common with it, or other data")
    return Sheet(
        f"paired differences from {comparison.baseline.label}, with {percent} t intervals over seeds",
        ("method", "pairs", *(heading(name) for name in comparison.metrics)),
        tuple(rows),
        tuple(notes),
    )


def shares_sheets(comparison: Comparison) -> list[Sheet]:
    """For each metric, what each key explains of its variance."""
    sheets = []
    for metric, shares in comparison.shares.items():
        if not shares:  # measured once, or always the same
            continue
        rows = tuple(_share_row(share, metric) for share in shares)
        notes = ("adjusted: less what as many levels explain by chance; keys that act together are not told apart",)
        columns = ("what mattered", "runs", "share of variance", "adjusted", "mean at each value")
        sheets.append(Sheet(f"what mattered for {heading(metric)}", columns, rows, notes))
    return sheets


def heading(metric: str) -> str:
    """A metric's name as a heading."""
    return {
        "test/log_likelihood": "test log-likelihood",
        "decoder_evaluations": "decoder evaluations",
        "training_evaluations": "evaluations",
    }.get(metric, metric)


def problem_lines(comparison: Comparison, most: int | None = None) -> list[str]:
    """One line for each run that is not finished, at most so many."""
    lines = [
        f"{run.state:<12}{printable(str(run.folder))}  {run.reason}".rstrip() for run in comparison.problems[:most]
    ]
    hidden = len(comparison.problems) - len(lines)
    return [*lines, f"... and {hidden} more; --format json lists all"] if hidden else lines


def _share_row(share: Share, metric: str) -> tuple[Cell, ...]:
    levels = list(share.levels) if direction(metric) >= 0 else list(reversed(share.levels))
    spread = max(mean for _, mean in levels) - min(mean for _, mean in levels)
    digits = _digits(spread)
    told = [f"{level}: {_number(mean, digits)}" for level, mean in levels]
    if len(told) > _MANY_LEVELS + 1:
        told = [*told[: _MANY_LEVELS - 1], f"... {len(told) - _MANY_LEVELS} more ...", told[-1]]
    adjusted = "unknown" if share.adjusted is None else f"{100 * max(share.adjusted, 0):.0f} %"
    return (
        Cell(share.key),
        Cell(str(share.runs)),
        Cell(f"{100 * share.share:.0f} %"),
        Cell(adjusted),
        Cell(",  ".join(told)),
    )


def _counts(states: Sequence[str]) -> tuple[int, int, int, int]:
    """How many runs there are of each kind in `_COUNTED`."""
    failed = sum(state in _FAILED for state in states)
    finished, pruned = states.count(FINISHED), states.count(PRUNED)
    return finished, pruned, failed, len(states) - finished - pruned - failed


def _metric_cells(comparison: Comparison, metric: str, spread: Spread) -> list[Cell]:
    """One column: all numbers with the same digits, the best of each arena marked."""
    found = [row.moments.get(metric) for row in comparison.rows]
    # Costs that are the same for every seed are shown without a spread.
    errors = [error for known in found if known is not None and (error := _error(known, spread))]
    means = [known.mean for known in found if known is not None]
    digits = _digits(statistics.median(errors)) if errors else _digits_alone(means)
    texts = ["" if known is None else _number(known.mean, digits) for known in found]
    best = _best(comparison, metric, texts)
    cells = []
    for i, known in enumerate(found):
        error = None if known is None else _error(known, spread)
        told = texts[i] if error is None or not errors else f"{texts[i]} ± {_number(error, digits)}"
        cells.append(Cell(told, i in best))
    return cells


def _best(comparison: Comparison, metric: str, texts: Sequence[str]) -> set[int]:
    """The rows that read best, ties included, where there is another one to be better than."""
    sign, best = direction(metric), set()
    for arena in {row.group.arena for row in comparison.rows}:
        rivals = [i for i, row in enumerate(comparison.rows) if row.group.arena == arena and metric in row.moments]
        if sign and len(rivals) > 1:
            top = max(rivals, key=lambda i: sign * comparison.rows[i].moments[metric].mean)
            best |= {i for i in rivals if texts[i] == texts[top]}
    return best


def _difference(row: Row, metric: str) -> str:
    difference = row.differences.get(metric)
    if difference is None:
        return ""
    if difference.low is None or difference.high is None:
        return _signed(difference.mean, _digits_alone([difference.mean]))
    # Digits of its own: seeds that two methods share may leave one difference a thousand times narrower than another.
    half = (difference.high - difference.low) / 2
    digits = _digits(half) if half > 0 else _digits_alone([difference.mean])
    text = _signed(difference.mean, digits)
    mark = " !" if difference.clear else ""
    return f"{text} [{_signed(difference.low, digits)}, {_signed(difference.high, digits)}]{mark}"


def _notes(comparison: Comparison) -> tuple[str, ...]:
    """What a reader should know of the groups."""
    notes = []
    for row in comparison.rows:
        if seeds := row.group.repeated_seeds:
            notes.append(f"{row.group.label}: seed {', '.join(map(str, seeds))} more than once; all count")
        if len({run.data for run in row.group.finished} - {""}) > 1:
            notes.append(f"{row.group.label}: its runs had different data")
    for name in comparison.metrics:
        if len(_measured_how(comparison, name)) > 1:
            notes.append(f"{heading(name)}: not on as many data, or not with as many samples, for all runs")
    if len({row.group.arena for row in comparison.rows}) > 1:
        notes.append("the best is marked among methods with the same data and likelihood")
    return tuple(notes)


def _measured_how(comparison: Comparison, metric: str) -> set[tuple[float | None, ...]]:
    """Numbers of data, samples and temperatures with which an estimator measured a metric of the runs."""
    estimator = metric.rpartition("/")[0]
    keys = [f"{estimator}/{key}" for key in ("data", "num_samples", "num_chains", "num_temperatures")]
    runs = [run for row in comparison.rows for run in row.group.finished if metric in run.metrics]
    return {tuple(run.metrics.get(key) for key in keys) for run in runs}


def _error(found: Moments, spread: Spread) -> float | None:
    return {"sd": found.sd, "se": found.se, "ci": found.ci}[spread]


def _spread_word(spread: Spread, confidence: float) -> str:
    words = {"sd": "standard deviation", "se": "standard error", "ci": f"{100 * confidence:g} % confidence interval"}
    return words[spread]


def _digits(error: float) -> int:
    """Decimals with which an error has two digits."""
    return min(max(1 - math.floor(math.log10(error)), 0), 6) if error > 0 and math.isfinite(error) else 3


def _digits_alone(values: Sequence[float]) -> int:
    """Decimals of numbers without an error: five digits, and none for counts."""
    largest = max((abs(value) for value in values), default=0.0)
    if all(value == round(value) for value in values) or largest == 0:
        return 0
    return min(max(4 - math.floor(math.log10(largest)), 0), 6)


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _signed(value: float, digits: int) -> str:
    return f"{value:+,.{digits}f}"
