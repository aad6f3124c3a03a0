"""docs/results.md, written from the studies' texts and the records in docs/results; nobody writes it by hand."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.study_plan import Study, load_study, names
from benchmarks.study_records import Record, records_of

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
HEAD = """# Results

This page is written by `python -m benchmarks.study page` from the small files in `docs/results`, which
`python -m benchmarks.study NAME` makes: it trains and evaluates what is missing. ± is the standard deviation over
seeds; where there is a second one it is the standard error over the test data, which all rows share. Log-likelihoods
are in nats per datum. Milliseconds are those of training with its validations, on the machine that is named.
"""


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation over seeds."""
    mean = statistics.fmean(values)
    return f"{mean:.{digits}f}" + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def _estimate(name: str) -> Callable[[list[Record]], str]:
    def cell(records: list[Record]) -> str:
        found = [one["estimators"][name] for one in records if name in one["estimators"]]
        if not found:
            return "-"
        error = statistics.fmean(one["standard_error_over_data"] for one in found)
        return f"{spread([one['nats'] for one in found])} ± {error:.2f}"

    return cell


def _agreement(records: list[Record]) -> str:
    found = [one["agreement"].get("ais - importance") for one in records]
    if not all(found):
        return "-"
    nats, errors = ([one[key] for one in found] for key in ("nats", "standard_error_over_data"))
    return f"{statistics.fmean(nats):+.3f} ± {statistics.fmean(errors) / len(found) ** 0.5:.3f}"


def _summary(key: str, digits: int = 2) -> Callable[[list[Record]], str]:
    return lambda records: spread([one["summary"].get(key, math.nan) for one in records], digits)


def _per_iteration(records: list[Record]) -> str:
    return (
        f"{1000 * statistics.median(one['summary']['seconds'] / one['summary']['iterations'] for one in records):.1f}"
    )


def _quality(records: list[Record]) -> str:
    found = [one["estimators"]["importance"] for one in records if "importance" in one["estimators"]]
    if not found:
        return "-"
    size, pareto = (statistics.fmean(one[key] for one in found) for key in ("effective_samples", "pareto_k"))
    return f"{size:.0f}, {pareto:.2f}"


COLUMNS: dict[str, Callable[[list[Record]], str]] = {
    "test bound": _summary("test/bound"),
    "importance sampling": _estimate("importance"),
    "effective samples, Pareto k": _quality,
    "AIS - importance, same data": _agreement,
    "exact": _estimate("exact"),
    "ms per iteration": _per_iteration,
    "decoder evaluations": lambda records: f"{records[0]['summary']['decoder_evaluations']:,}",
    "seeds": lambda records: ", ".join(str(one["seed"]) for one in records),
}


def table(study: Study) -> Iterator[str]:
    """Lines of the table, a row for each label; a column that is empty throughout is left out."""
    records = records_of(study)
    by_row = {label: [one for one in records if one["row"] == label] for label in study.rows}
    filled = {label: found for label, found in by_row.items() if found}
    columns = {title: {label: cell(found) for label, found in filled.items()} for title, cell in COLUMNS.items()}
    if study.published:
        columns["published"] = {label: study.published.get(label, "") for label in filled}
    shown = {title: cells for title, cells in columns.items() if set(cells.values()) - {"-", ""}}
    yield f"| | {' | '.join(shown)} | words |"
    yield "|---" * (len(shown) + 2) + "|"
    for label in study.rows:
        words = f"`{' '.join(study.rows[label])}`"
        cells = (
            [shown[title][label] for title in shown] if label in filled else ["not measured"] + [""] * (len(shown) - 1)
        )
        yield f"| {label} | {' | '.join(cells)} | {words} |"


def section(study: Study) -> str:
    """A study's part of the page."""
    records = records_of(study)
    made = sorted({f"{one['machine']}, torch {one['torch']}, commit {one['commit']}" for one in records})
    lines = [
        f"## {study.title}",
        "",
        study.text.strip(),
        "",
        f"`python -m benchmarks.study {study.name}`; every row has `{' '.join(study.common)}`"
        f" and is measured by `metvae evaluate {' '.join(study.evaluate)}`."
        f" Made on: {'; '.join(made) or 'nothing yet'}.",
        "",
        *table(study),
        "",
        study.verdict.strip(),
    ]
    return "\n".join(lines).strip() + "\n"


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(load_study(name)) for name in names())])


def write_page() -> None:
    """Write docs/results.md."""
    PAGE.write_text(page(), encoding="utf-8")
