"""`metvae compare`: runs and sweeps in one table, by method, averaged over seeds."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, cast

from metvae_cli.comparison import filters, formats, metrics, records, tables
from metvae_cli.comparison.groups import Group, group_runs
from metvae_cli.comparison.names import resolve
from metvae_cli.comparison.rows import Comparison, build_row, find_baseline, ordered, shares
from metvae_cli.comparison.runs import FINISHED, Run, find, with_evaluations
from metvae_cli.errors import ConfigError
from metvae_cli.schema import did_you_mean

EPILOG = """\
examples:
  metvae compare outputs/train                                   all runs and sweeps, grouped by all but the seed
  metvae compare outputs/train --metric nll --sort seconds       other columns, another order
  metvae compare SWEEP RUN --filter sampler=hmc,langevin --filter 'seed<5' --error se
  metvae compare SWEEP --paired sampler=none                     differences on the same seeds, with intervals
  metvae compare SWEEP --output table.tex                        for a paper; .md, .csv and .json as well
  metvae compare SWEEP --plot curves.png --importance            curves with bands, and which key mattered

DIR is a run, a sweep or a folder of them. Names may be short: nll for test/nll, num_steps for sampler.num_steps. Keys
for --filter, --sort and --by are those of the configuration, groups like sampler, metrics, seed, status and folder.
"""
_FORMATS = {"terminal": "", "csv": ".csv", "json": ".json", "markdown": ".md", "latex": ".tex"}
_SHORTER = {"md": "markdown", "tex": "latex", "text": "terminal", "txt": "terminal", "table": "terminal"}
_SPREADS = ("sd", "se", "ci")
_LISTED = 20


def main(argv: list[str]) -> int:
    """Run `metvae compare DIR...`; return the exit status.

    Raises:
        ConfigError: no such directory, no run in it, a word that means nothing, or a file that cannot be written
    """
    arguments = _parser().parse_args(argv)
    style = _format(arguments.format, arguments.output)
    _check(arguments, style)
    folders = arguments.folders or [Path("outputs")]
    conditions = [filters.parse(text) for text in arguments.filter]
    everything, lost, old = _runs(folders)
    runs = filters.matching(everything, conditions)
    if not any(run.configured for run in runs):
        raise ConfigError(_nothing_left(everything, runs, arguments.filter, folders))
    comparison, groups = _compare(runs, arguments)
    _write(comparison, style, arguments)
    if arguments.plot:
        from metvae_cli.comparison.curves import write_plot  # here: matplotlib is slow to import

        write_plot(groups, comparison, arguments.plot)
        _say(f"written {arguments.plot}")
    if lost:
        _say(f"evaluations of runs that are not here, left out: {lost}; name those runs too")
    if old:
        _say(f"evaluations from before their runs were gone on with, left out: {old}; evaluate those runs anew")
    return 0


def _parser() -> argparse.ArgumentParser:
    """Describe the arguments."""
    parser = argparse.ArgumentParser(
        prog="metvae compare",
        description="One table of runs and sweeps: a row per method, mean and spread over seeds, the best in bold.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def error(message: str) -> NoReturn:
        raise ConfigError(f"{message}; `metvae compare --help` shows what may be said")

    parser.error = error
    add = parser.add_argument
    add("folders", nargs="*", type=Path, metavar="DIR", help="runs, sweeps, folders of them (default: outputs)")
    add("--metric", "-m", action="append", default=[], metavar="NAME", help="a column; again or a,b for more")
    add("--sort", metavar="KEY", help="order: a metric, the best first; a key; or label (default: first metric)")
    add("--reverse", action="store_true", help="the other way round")
    add("--filter", "-f", action="append", default=[], metavar="KEY=VALUE", help="only these; also != < <= > >= and *")
    add("--by", action="append", default=[], metavar="KEY", help="group by these keys instead of all but the seed")
    add("--error", default="sd", metavar="sd|se|ci", help="spread: standard deviation, its error, or an interval")
    add("--confidence", type=float, default=0.95, metavar="LEVEL", help="of the intervals (default: 0.95)")
    add("--paired", nargs="?", const="", metavar="METHOD", help="differences from METHOD (default: the first row)")
    add("--importance", action="store_true", help="how much of the variance each key explains")
    add("--plot", type=Path, metavar="FILE", help="curves against cost as PNG, PDF or SVG")
    add("--format", metavar="|".join(_FORMATS), help="by default what the name of --output says, or terminal")
    add("--output", "-o", type=Path, metavar="FILE", help="write there and not on the terminal")
    return parser


def _check(arguments: argparse.Namespace, style: str) -> None:
    """Refuse what can be refused before anything is read, and give a directory after --paired back to the others."""
    if arguments.error not in _SPREADS:
        raise ConfigError(f"--error={arguments.error}: expected sd, se or ci{did_you_mean(arguments.error, ())}")
    if not 0 < arguments.confidence < 1:
        raise ConfigError(f"--confidence={arguments.confidence}: must lie between 0 and 1, like 0.95")
    if arguments.importance and style == "csv":
        raise ConfigError("--importance: a CSV file holds one table; take --format json")
    if arguments.plot and arguments.plot.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"--plot={arguments.plot}: end its name in .png, .pdf or .svg")
    for path, option in ((arguments.output, "--output"), (arguments.plot, "--plot")):
        if path and (path.is_dir() or not path.parent.is_dir()):
            reason = "is a directory; name a file in it" if path.is_dir() else f"there is no directory {path.parent}"
            raise ConfigError(f"{option}={path}: {reason}")
    if arguments.paired and Path(arguments.paired).is_dir():
        arguments.folders, arguments.paired = [*arguments.folders, Path(arguments.paired)], ""


def _format(asked: str | None, output: Path | None) -> str:
    """The format by name or by the name of the file.

    Raises:
        ConfigError: there is no such format
    """
    if asked is None:
        suffix = output.suffix.lower() if output else ""
        found = next((name for name, own in _FORMATS.items() if own and own == suffix), None)
        if found is None and suffix not in ("", ".txt"):
            known = ", ".join(own for own in _FORMATS.values() if own)
            raise ConfigError(f"--output={output}: end its name in {known} or .txt, or name its --format")
        return found or "terminal"
    name = _SHORTER.get(asked.lower(), asked.lower())
    if name not in _FORMATS:
        raise ConfigError(f"--format={asked}: unknown format{did_you_mean(asked, list(_FORMATS))}")
    return name


def _runs(folders: Sequence[Path]) -> tuple[list[Run], int, int]:
    """All runs with their evaluations, and how many of these belong to none of them or are of earlier weights."""
    runs, evaluations = find(folders)
    if not runs:
        where = ", ".join(str(folder) for folder in folders)
        if evaluations:
            raise ConfigError(f"{where}: only evaluations are there; name their runs too, like {evaluations[0].run}")
        raise ConfigError(f"{where}: no run is there; name a folder that `metvae train` or `metvae infer` wrote")
    return with_evaluations(runs, evaluations)


def _nothing_left(everything: Sequence[Run], runs: Sequence[Run], asked: Sequence[str], folders: Sequence[Path]) -> str:
    """Why there is no row to show."""
    if not runs:
        return f"--filter={' --filter='.join(asked)}: none of {len(everything)} runs is like that; ask for less"
    where = ", ".join(str(folder) for folder in folders)
    return f"{where}: no run got as far as its configuration; the first says: {runs[0].reason or runs[0].state}"


def _compare(runs: Sequence[Run], arguments: argparse.Namespace) -> tuple[Comparison, list[Group]]:
    """Group, sort and average what is to be shown."""
    groups = group_runs(runs, [key for given in arguments.by for key in given.split(",")])
    known = metrics.measured(runs)
    asked = [name for given in arguments.metric for name in given.split(",")]
    columns = list(dict.fromkeys(resolve(name, known, "--metric") for name in asked)) or metrics.usual(runs)
    first = columns[0] if columns[0] in known else "label"
    groups = ordered(groups, arguments.sort or first, known, reverse=arguments.reverse)
    baseline = None
    if arguments.paired is not None:
        baseline = find_baseline(groups, arguments.paired) if arguments.paired else groups[0]
    rows = tuple(build_row(group, columns, baseline, arguments.confidence) for group in groups)
    quality = [name for name in columns if metrics.direction(name) >= 0] or columns
    found = {name: shares(groups, name) for name in quality} if arguments.importance or arguments.plot else {}
    problems = tuple(run for run in runs if run.state != FINISHED)
    return Comparison(rows, tuple(columns), baseline, found, problems, arguments.confidence), groups


def _write(comparison: Comparison, style: str, arguments: argparse.Namespace) -> None:
    """Print the tables, or write them to a file."""
    if style == "csv":
        text = records.to_csv(comparison)
    elif style == "json":
        text = records.to_json(comparison)
    else:
        sheets = [tables.means_sheet(comparison, cast(tables.Spread, arguments.error))]
        differences = tables.differences_sheet(comparison)
        sheets += [differences] if differences else []
        sheets += tables.shares_sheets(comparison) if arguments.importance else []
        lines = tables.problem_lines(comparison, _LISTED)
        if style == "terminal" and not arguments.output and sys.stdout is not None and sys.stdout.isatty():
            formats.terminal(sheets, lines, sys.stdout)
            return
        text = {"terminal": formats.plain, "markdown": formats.markdown, "latex": formats.latex}[style](sheets, lines)
    if not arguments.output:
        print(text, end="")
        return
    try:
        arguments.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output={arguments.output}: cannot be written ({error.strerror})") from error
    _say(f"written {arguments.output}")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
