"""Run or resume a study: python -m benchmarks.study NAME

Each run is trained and evaluated by the commands of metvae, in a folder of its own below outputs/studies; what is
finished is left alone, what was stopped goes on. Its numbers are added to docs/results/NAME.json, and docs/results.md
is written anew after each run. Seeds are the outer loop, so that all rows have one seed early.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.results_page import write_page
from benchmarks.speed import Parser
from benchmarks.study_plan import Study, StudyError, load_study, names
from benchmarks.study_records import is_kept, keep, read_record
from metvae_cli.tracking.run_directory import read_status

HOME = Path("outputs") / "studies"


def slug(row: str) -> str:
    """A row's label as the name of a folder."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in row)


def command_lines(study: Study, row: str, seed: int, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands that are left to do for a run: train or resume, and evaluate."""
    if read_status(folder).get("status") != "finished":
        if (folder / "checkpoints" / "last.pt").is_file():
            yield "train", [f"resume={folder}"]
        else:
            yield "train", [*study.words(row), f"seed={seed}", f"hydra.run.dir={folder}"]
    if not (folder / "evaluation" / "evaluation.json").is_file():
        yield "evaluate", [f"run={folder}", *study.evaluate, f"hydra.run.dir={folder / 'evaluation'}"]


def carry_out(study: Study, row: str, seed: int) -> bool:
    """Do what is left of a run and keep its record; False if a command failed."""
    folder = HOME / study.name / slug(row) / f"seed_{seed}"
    for command, words in command_lines(study, row, seed, folder):
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "metvae_cli.cli", command, *words], stdout=subprocess.DEVNULL)
        print(f"{row}, seed {seed}: {command} took {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode in (130, 143):
            sys.exit(done.returncode)
        if done.returncode:
            print(f"{row}, seed {seed}: metvae {command} ended with status {done.returncode}; see {folder}", flush=True)
            return False
    keep(study, read_record(study, row, seed, folder, folder / "evaluation"))
    write_page()
    return True


def run_study(study: Study, rows: Sequence[str], seeds: Sequence[int]) -> int:
    """Do what is left of a study; the exit status."""
    failed = 0
    for seed in seeds:
        for row in rows:
            if not is_kept(study, row, seed):
                failed += not carry_out(study, row, seed)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Parser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("study", help=f"one of {', '.join(names())}, or `page` for docs/results.md alone")
    parser.add_argument("--rows", help="some of its rows, by commas")
    parser.add_argument("--seeds", help="other seeds than its own, by commas")
    chosen = parser.parse_args(arguments)
    if chosen.study == "page":
        write_page()
        return 0
    try:
        study = load_study(chosen.study)
    except StudyError as error:
        parser.error(str(error))
    rows = chosen.rows.split(",") if chosen.rows else list(study.rows)
    if unknown := set(rows) - set(study.rows):
        parser.error(f"--rows {','.join(sorted(unknown))}: the rows are {', '.join(study.rows)}")
    seeds = chosen.seeds.split(",") if chosen.seeds else study.seeds
    if any(not str(seed).isdigit() for seed in seeds):
        parser.error(f"--seeds {chosen.seeds}: whole numbers by commas, as 0,1,2")
    return run_study(study, rows, [int(seed) for seed in seeds])


if __name__ == "__main__":
    sys.exit(main())
