"""docs/results.md, written from the studies' texts and the records in docs/results; nobody writes it by hand."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.figure_plan import load_figures
from benchmarks.overview import load_overview, write_overview
from benchmarks.study_figure import write_figure
from benchmarks.study_plan import Study, load_study, names
from benchmarks.study_records import RECORDS, Record, by_difference, difference, likelihood, of_cell, records_of

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
HEAD = """# Results

This page is written by `python -m benchmarks.study page` from the small files in `docs/results`, which
`python -m benchmarks.study NAME` makes: it trains and evaluates what is missing. Log-likelihoods are in nats per datum.
± is the standard deviation over seeds. In parentheses stands the standard error over the test data, which
all rows share, so that differences between rows are known better than that. Rows are compared by annealing (AIS) where
it was run. "By difference" puts AIS on the level of all test data: importance sampling of all, plus what AIS adds to it
on the data that have both, whose error (the parentheses of the column before) is each row's own. Milliseconds and
seconds are those of training with its validations, on the machine that is named, which other programs may have shared.

Words: what the row adds to the words of all rows. Test bound: the value of the training objective. Effective samples,
Pareto k: of the importance weights; above 0.7 importance sampling is not to be trusted. KL: of a few data, by nearest
neighbours, so that small ones may come out negative. Without ±: one seed. Bold: the highest mean, level with others or
not.

K is the number of Markov steps. Whitened: they move in the encoder's coordinates (`sampler.precondition=encoder`).
Stops: a chain in the encoder's coordinates ends where it is first rejected, all K + 1 ends are summed, and r guesses
which it was ([method.md](method.md)).
"""
FIGURES_HEAD = """## Figures

Made by the commands under each; `python -m benchmarks.figures NAME` runs them and keeps their pictures.
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
        return f"{spread([one['nats'] for one in found])} ({error:.2f})"

    return cell


def _agreement(records: list[Record]) -> str:
    found = [one["agreement"].get("ais - importance") for one in records]
    if not all(found):
        return "-"
    nats, errors = ([one[key] for one in found] for key in ("nats", "standard_error_over_data"))
    return f"{statistics.fmean(nats):+.3f} ({statistics.fmean(errors):.3f})"


def _ais_of_all(records: list[Record]) -> str:
    """AIS of all test data, where it was measured on some of them."""
    found = [known for one in records if (known := by_difference(one))]
    if len(found) < len(records):
        return "-"
    return f"{spread([nats for nats, _ in found])} ({statistics.fmean(error for _, error in found):.2f})"


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


def _gap(records: list[Record]) -> str:
    """How far the bound stays below the likelihood: what the inference of training leaves, if both are of all data."""
    found = [
        best[0] - one["summary"]["test/bound"]
        for one in records
        if (best := by_difference(one) or likelihood(one)) and "test/bound" in one["summary"] and _same_data(one)
    ]
    return spread(found) if found else "-"


def _same_data(record: Record) -> bool:
    """Whether bound and likelihood are of all test data, as far as the words say."""
    told = dict(word.split("=", 1) for word in [*record["words"], *record["evaluate"]])
    some = told.get("trainer.test_data", "null")
    enough = some == "null" or int(some) >= record["estimators"]["importance"]["data"]
    return enough and told.get("data", "null") == "null"


def _posterior(records: list[Record]) -> str:
    found = [one["posterior"] for one in records if one.get("posterior")]
    if not found:
        return "-"
    start, end = ([one[key] for one in found] for key in ("kl_start", "kl_end"))
    return spread(start) if start == end else f"{spread(start)}; {spread(end)}"


COLUMNS: dict[str, Callable[[list[Record]], str]] = {
    "AIS, the same data for all rows": _estimate("ais"),
    "importance sampling": _estimate("importance"),
    "test bound": _summary("test/bound"),
    "likelihood - bound": _gap,
    "KL to the posterior: encoder; chain's end": _posterior,
    "effective samples, Pareto k": _quality,
    "AIS - importance, same data": _agreement,
    "AIS, all data by difference": _ais_of_all,
    "exact": _estimate("exact"),
    "ms per iteration": _per_iteration,
    "seconds": _summary("seconds", 0),
    "decoder evaluations": lambda records: (
        f"{statistics.fmean(one['summary']['decoder_evaluations'] for one in records):,.0f}"
    ),
    "seeds": lambda records: ", ".join(str(one["seed"]) for one in records),
}


def table(study: Study, setting: str = "") -> Iterator[str]:
    """Lines of the table, a row for each label that is measured; a column that is empty throughout is left out."""
    records = [one for one in records_of(study) if one["setting"] == setting]
    by_row = {label: [one for one in records if one["row"] == label] for label in study.rows}
    filled = {label: found for label, found in by_row.items() if found}
    columns = {title: {label: cell(found) for label, found in filled.items()} for title, cell in COLUMNS.items()}
    if study.published:
        columns["published"] = {label: study.published.get(label, "") for label in filled}
    shown = {title: cells for title, cells in columns.items() if set(cells.values()) - {"-", ""}}
    if filled:
        yield f"| | {' | '.join(['words', *shown])} |"
        yield "|---" * (len(shown) + 2) + "|"
    for label in filled:
        words = f"`{' '.join(study.rows[label])}`"
        yield f"| {' | '.join([label, words, *(cells[label] for cells in shown.values())])} |"
    if missing := [f"{label} (`{' '.join(words)}`)" for label, words in study.rows.items() if label not in filled]:
        yield from ([""] if filled else [])
        yield f"Not measured: {'; '.join(missing)}."


def grid_table(study: Study) -> Iterator[str]:
    """Lines of a table with the settings of a grid below one another and the rows beside one another; best in bold."""
    records = records_of(study)
    first, *others = study.rows
    differences = [f"{row} less {first}" for row in others] if study.paired else []
    yield f"| | words | {' | '.join([*study.rows, *differences])} |"
    yield "|---" * (len(study.rows) + len(differences) + 2) + "|"
    for setting, words in study.grid.items():
        found = {row: _nats(records, setting, row) for row in study.rows}
        means = {row: statistics.fmean(values) for row, values in found.items() if values}
        best = max(means, key=lambda row: means[row], default="")
        cells = [
            (f"**{spread(values)}**" if row == best else spread(values)) if values else "not measured"
            for row, values in found.items()
        ]
        cells += [_difference(records, setting, row, first) for row in others] if study.paired else []
        yield f"| {setting} | `{' '.join(words)}` | {' | '.join(cells)} |"
    yield ""
    yield "The rows: " + "; ".join(f"{row}: `{' '.join(words)}`" for row, words in study.rows.items()) + "."
    counts = sorted({len(_nats(records, setting, row)) for setting in study.grid for row in study.rows} - {0})
    data = {one["estimators"]["ais"]["data"] for one in records if "ais" in one["estimators"]}
    how = f"annealing, of the same {max(data)} data" if data else "importance sampling"
    if study.grid_of == "evaluate":
        how = "what its line says, of the same data for all rows"
    paired = " Differences: datum by datum (standard error of their mean over data)." if study.paired else ""
    yield f"Test log-likelihood by {how}; seeds of a cell: {', '.join(map(str, counts)) or 'none'}.{paired}"


def _difference(records: Sequence[Record], setting: str, row: str, first: str) -> str:
    found = difference(of_cell(records, setting, row), of_cell(records, setting, first))
    return "not measured" if found is None else f"{found[0]:+.2f} ({found[1]:.2f})"


def _nats(records: Sequence[Record], setting: str, row: str) -> list[float]:
    chosen = [likelihood(one) for one in of_cell(records, setting, row)]
    return [found[0] for found in chosen if found]


def tables(study: Study) -> Iterator[str]:
    """Lines of a study's table, or of one for each setting of its grid."""
    if not study.grid:
        yield from table(study)
    elif not study.detail:
        yield from grid_table(study)
    else:
        for index, (setting, words) in enumerate(study.grid.items()):
            yield from ([""] if index else [])
            yield from (f"{setting}, `{' '.join(words)}`:", "", *table(study, setting))


def made_on(records: Sequence[Record]) -> str:
    """Machines, and the commits that ran on each."""
    commits: dict[str, set[str]] = {}
    for one in records:
        changed = f" with changes in {', '.join(one['changed'])}" if one.get("changed") else ""
        commits.setdefault(f"{one['machine']}, torch {one['torch']}", set()).add(one["commit"] + changed)
    machines = (f"{machine}, commit {', '.join(sorted(found))}" for machine, found in sorted(commits.items()))
    return "; ".join(machines) or "nothing yet"


def section(study: Study) -> str:
    """A study's part of the page."""
    records = records_of(study)
    lines = [
        f"## {study.title}",
        "",
        study.text.strip(),
        "",
        f"`python -m benchmarks.study {study.name}`; every row has `{' '.join(study.common)}`"
        f" and is measured by `metvae evaluate {' '.join(study.evaluate)}`."
        f" Made on: {made_on(records)}.",
        "",
        *tables(study),
    ]
    if records:
        lines += ["", f"![{study.title}](results/{study.name}.png)"]
    return "\n".join([*lines, "", study.verdict.strip()]).strip() + "\n"


def page() -> str:
    """The whole page."""
    studies = [section(load_study(name)) for name in names()]
    figures = [figure.section(RECORDS) for figure in load_figures()]
    return "\n".join([HEAD, load_overview().section(), *studies, FIGURES_HEAD, *figures]).rstrip() + "\n"


def write_page() -> None:
    """Write docs/results.md and the figures of its studies."""
    for study in map(load_study, names()):
        if records := records_of(study):
            write_figure(study, records, RECORDS / f"{study.name}.png")
    write_overview(RECORDS / "overview.png")
    PAGE.write_text(page(), encoding="utf-8")
