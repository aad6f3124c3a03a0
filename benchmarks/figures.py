"""Make pictures of docs/results.md that belong to no study: those of benchmarks/figures.yaml.

    python -m benchmarks.figures ring_posterior walk

Each one's commands are run, and its pictures, its table and the commands are copied to docs/results; then
docs/results.md is written anew, with the commands under each. Without a name all of them are made.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.figure_plan import Figure, load_figures
from benchmarks.results_page import write_page
from benchmarks.study_records import RECORDS, writing
from benchmarks.words import Parser, one_of

HOME = Path("outputs") / "figures"


def words_of(command: str) -> list[str]:
    """The words to run a command of the page with: `metvae` and `python` are those of this environment."""
    program, *words = shlex.split(command)
    return [sys.executable, *(["-m", "metvae_cli.cli"] if program == "metvae" else []), *words]


def make(figure: Figure) -> bool:
    """Run a figure's commands in a folder of its own and keep what they leave; False if one failed."""
    folder = HOME / figure.name
    shutil.rmtree(folder, ignore_errors=True)
    for command in figure.commands:
        done = subprocess.run(words_of(command.format(folder=folder)), stdout=subprocess.DEVNULL)
        if done.returncode:
            print(f"{figure.name}: `{command}` ended with status {done.returncode}", flush=True)
            return False
    with writing():
        for name in [*figure.pictures, *([figure.table] if figure.table else [])]:
            shutil.copyfile(folder / name, RECORDS / figure.kept(name))
        (RECORDS / figure.kept("commands.txt")).write_text(figure.shown_commands + "\n", encoding="utf-8")
        write_page()
    return True


def main() -> int:
    """Make the figures that are named."""
    figures = {figure.name: figure for figure in load_figures()}
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", type=one_of(list(figures)), help=f"of {', '.join(figures)}")
    names = parser.parse_args().names or list(figures)
    return 0 if all([make(figures[name]) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
