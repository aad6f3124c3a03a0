"""Run or resume a study, or write docs/results.md alone.

    python -m benchmarks.study digits_methods --seeds 0
    python -m benchmarks.study page

Each run is trained and evaluated by the commands of metvae, in a folder of its own below outputs/studies; what is
finished is left alone, what was stopped goes on. Its numbers are added to docs/results/NAME.json, and docs/results.md
is written anew after each run. Seeds are the outer loop, so that all rows have one seed early. Several processes may
carry out different rows or seeds of a study at once.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.results_page import write_page
from benchmarks.study_plan import Study, StudyError, Unit, load_study, names, short_hash
from benchmarks.study_records import keep, read_record, records_of, unit_of, writing
from benchmarks.words import Parser, several
from metvae_cli.schema import did_you_mean
from metvae_cli.tracking.run_directory import read_status

HOME = Path("outputs") / "studies"
STOPPED = (130, 138, 140, 143)  # by a signal: the study ends too


def command_lines(study: Study, unit: Unit, folder: Path, evaluation: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands that are left to do for a run: train or resume, and evaluate."""
    if read_status(folder).get("status") != "finished":
        if (folder / "checkpoints" / "last.pt").is_file():
            yield "train", [f"resume={folder}"]
        else:
            yield "train", [*study.words(unit), f"seed={unit.seed}", f"hydra.run.dir={folder}"]
    if not (evaluation / "evaluation.json").is_file():
        yield "evaluate", [f"run={folder}", *study.evaluate, f"hydra.run.dir={evaluation}"]


def carry_out(study: Study, unit: Unit) -> bool:
    """Do what is left of a run and keep its record; False if a command failed."""
    home, label = HOME / study.name, f"{unit.setting} {unit.row}, seed {unit.seed}".strip()
    folder = home / study.folder(unit)
    evaluation = folder / f"evaluation_{short_hash(study.evaluate)}"
    for command, words in command_lines(study, unit, folder, evaluation):
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "metvae_cli.cli", command, *words], stdout=subprocess.DEVNULL)
        print(f"{label}: {command} took {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode in STOPPED:
            sys.exit(done.returncode)
        if done.returncode:
            print(f"{label}: metvae {command} ended with status {done.returncode}; see {folder}", flush=True)
            return False
    with writing(HOME / ".lock"):
        keep(study, read_record(study, unit, folder, evaluation))
        write_page()
    return True


def run_study(study: Study, rows: Sequence[str], seeds: Sequence[int]) -> int:
    """Do what is left of a study; the exit status."""
    failed = 0
    for unit in study.units(rows, seeds):
        if unit not in {unit_of(record) for record in records_of(study)}:
            failed += not carry_out(study, unit)
    return 1 if failed else 0


def parser() -> Parser:
    """Which words there are."""
    made = Parser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("study", help=f"one of {', '.join(names())}, or `page` for docs/results.md alone")
    made.add_argument("--rows", type=several(str), help="some of its rows, by commas (all)")
    made.add_argument("--seeds", type=several(_seed), help="by commas (its own)")
    return made


def _seed(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number")
    return int(word)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    made = parser()
    chosen = made.parse_args(arguments)
    if chosen.study == "page":
        write_page()
        return 0
    try:
        study = load_study(chosen.study)
    except StudyError as error:
        made.error(str(error))
    for row in chosen.rows or ():
        if row not in study.rows:
            made.error(f"--rows: no row {row!r}{did_you_mean(row, [*study.rows])}; rows are {'; '.join(study.rows)}")
    return run_study(study, chosen.rows or [*study.rows], chosen.seeds or study.seeds)


if __name__ == "__main__":
    sys.exit(main())
