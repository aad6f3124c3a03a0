"""Run or resume a study, or write docs/results.md alone.

    python -m benchmarks.study digits_methods --seeds 0
    python -m benchmarks.study digits_methods --rows VAE --seeds 1 --check
    python -m benchmarks.study page

Each run is trained and evaluated by the commands of metvae, in a folder of its own below outputs/studies; what is
finished is left alone, what was stopped goes on. Its numbers are added to docs/results/NAME.json, and docs/results.md
is written anew after each run. Seeds are the outer loop, so that all rows have one seed early. Several processes may
carry out different rows or seeds of a study at once. `--check` makes runs whose numbers are kept once more, in a
new folder of outputs/checks, and prints both; it keeps nothing.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.child import status_of
from benchmarks.results_page import write_page
from benchmarks.study_plan import Study, StudyError, Unit, load_study, names, short_hash
from benchmarks.study_records import Record, keep, likelihood, read_record, records_of, unit_of, writing
from benchmarks.words import Parser, several
from metvae_cli.schema import did_you_mean
from metvae_cli.tracking.run_directory import read_status

HOME = Path("outputs") / "studies"
CHECKS = Path("outputs") / "checks"
STOPPED = (130, 138, 140, 143)  # by a signal: the study ends too


def command_lines(study: Study, unit: Unit, folder: Path, evaluation: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands that are left to do for a run: train or resume, and evaluate."""
    status = read_status(folder).get("status")
    trained = status == "finished"
    if status and not trained:  # a run that saved nothing begins anew
        yield "train", [f"resume={folder}"]
    elif not trained:
        yield "train", [*study.words(unit), f"seed={unit.seed}", f"hydra.run.dir={folder}"]
    if not trained or read_status(evaluation).get("status") != "finished":  # an earlier one is of earlier weights
        yield "evaluate", [f"run={folder}", *study.measure(unit), f"hydra.run.dir={evaluation}"]


def carry_out(study: Study, unit: Unit, home: Path) -> Record | None:
    """Do what is left of a run and read its record; None if a command failed."""
    label = label_of(unit)
    folder = home / study.name / study.folder(unit)
    evaluation = folder / f"evaluation_{short_hash(study.measure(unit))}"
    for command, words in command_lines(study, unit, folder, evaluation):
        started = time.monotonic()
        status = status_of([sys.executable, "-m", "metvae_cli.cli", command, *words])
        print(f"{label}: {command} took {time.monotonic() - started:.0f} s", flush=True)
        if status in STOPPED:
            sys.exit(status)
        if status:
            print(f"{label}: metvae {command} ended with status {status}; see {folder}", flush=True)
            return None
    return read_record(study, unit, folder, evaluation)


def label_of(unit: Unit) -> str:
    """A run on the screen."""
    return f"{unit.setting} {unit.row}, seed {unit.seed}".strip()


def run_study(study: Study, units: Sequence[Unit]) -> int:
    """Do what is left of runs of a study; the exit status."""
    failed = 0
    for unit in units:
        if unit in {unit_of(record) for record in records_of(study)}:
            continue
        record = carry_out(study, unit, HOME)
        failed += record is None
        if record is not None:
            with writing():
                if not keep(load_study(study.name), record):  # its file may be another by now, as others know it
                    print(f"{label_of(unit)}: the study has other words by now; not kept", flush=True)
                write_page()
    return 1 if failed else 0


def check_study(study: Study, units: Sequence[Unit]) -> int:
    """Make kept runs once more and print their numbers beside the kept ones; 1 if one failed.

    Raises:
        StudyError: none of the runs is kept
    """
    known = {unit_of(record): record for record in records_of(study)}
    chosen = [unit for unit in units if unit in known]
    if not chosen:
        raise StudyError("--check: the numbers of none of these runs are kept; without --check the runs are made")
    home, failed = CHECKS / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}", 0
    for unit in chosen:
        record = carry_out(study, unit, home)
        failed += record is None
        if record is not None:
            alike = [one for other, one in known.items() if other[:2] == unit[:2]]
            print(compared(known[unit], record, alike), flush=True)
    return 1 if failed else 0


def compared(kept: Record, made: Record, alike: Sequence[Record]) -> str:
    """A line with both likelihoods and bounds, and how far the seeds of the row (`alike`) lie apart."""
    both = [(likelihood(one) or (float("nan"),))[0] for one in (kept, made)]
    seeds = [found[0] for one in alike if (found := likelihood(one))]
    spread = f", standard deviation over seeds {statistics.stdev(seeds):.3f}" if len(seeds) > 1 else ""
    bounds = [one["summary"].get("test/bound", float("nan")) for one in (kept, made)]
    return (
        f"{label_of(unit_of(kept))}: log-likelihood {both[0]:.3f} kept, {both[1]:.3f} now{spread}; "
        f"test bound {bounds[0]:.3f} kept, {bounds[1]:.3f} now"
    )


def parser() -> Parser:
    """Which words there are."""
    made = Parser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("study", help=f"one of {', '.join(names())}, or `page` for docs/results.md alone")
    made.add_argument("--rows", type=several(str), help="some of its rows, by commas (all)")
    made.add_argument("--seeds", type=several(_seed), help="by commas (its own)")
    made.add_argument("--setting", action="append", default=[], help="one of its grid; may be given again (all)")
    made.add_argument("--check", action="store_true", help="make kept runs once more and compare; keep nothing")
    return made


def _seed(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 0 on")
    return int(word)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    made = parser()
    chosen = made.parse_args(arguments)
    if chosen.study == "page":
        if chosen.rows or chosen.seeds or chosen.setting or chosen.check:
            made.error("page: is of all that is kept, and takes no --rows, --seeds, --setting and --check")
        with writing():
            write_page()
        return 0
    try:
        study = load_study(chosen.study)
    except StudyError as error:
        made.error(str(error))
    for row in chosen.rows or ():
        if row not in study.rows:
            known = did_you_mean(row, [*study.rows]) or f"; known: {', '.join(study.rows)}"
            made.error(f"--rows: no row {row!r}{known}")
    for setting in chosen.setting:
        if setting not in study.settings:
            made.error(f"--setting: no setting {setting!r}{did_you_mean(setting, [*study.settings])}")
    units = list(study.units(chosen.rows or [*study.rows], chosen.seeds or study.seeds, chosen.setting))
    if not chosen.check:
        return run_study(study, units)
    try:
        return check_study(study, units)
    except StudyError as error:
        made.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
