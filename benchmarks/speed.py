"""What an iteration of each method costs, beside its floor and beside a plain VAE.

    make bench ARGS='--net fc400 --steps 5,10'         the table, and what `metvae train` adds to its iterations
    make bench ARGS='--quick'                          about a minute
    make bench ARGS='--growth --figure growth.png'     the cost over K, S, latent size, width, batch and threads

The floor is said in `floor.py`, an iteration in `contenders.py`. Contenders of a row take turns; only ratios within a
row outlive the machine. A row marked ~ was disturbed and is to be measured again: a third quartile lies more than a
quarter above the first, or other programs kept a tenth of the cores busy (with several threads, one busy neighbour can
make an iteration ten times as long).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import growth, loop, rows
from benchmarks.contenders import METHODS, NETS, Case, Machine, NotMeasuredError, cases, write_images
from benchmarks.measuring import Budget, load, machine_lines
from benchmarks.words import Parser, duration, one_of, positive, several
from metvae_cli.errors import ConfigError

LOOP_METHODS = ("vae", "lmcvae")
LOOP_ITERATIONS = {"fc400": 200, "conv": 40}
Report = dict[str, Any]


def device(word: str) -> str:
    """A device that is there."""
    if word != "cpu" and not (word.startswith("cuda") and torch.cuda.is_available()):
        raise argparse.ArgumentTypeError(f"{word!r} is not on this machine")
    return word


def file(word: str) -> Path:
    """A file that can be written, said before anything is measured."""
    path = Path(word)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{word!r} cannot be written")
    return path


def parser() -> Parser:
    """Which words there are."""
    made = Parser(prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--net", type=several(one_of([*NETS])), help=f"of {','.join(NETS)} (all)")
    loops = ",".join(LOOP_METHODS)
    add("--methods", type=several(one_of([*METHODS])), help=f"of {','.join(METHODS)} (all; of the loop, {loops})")
    add("--steps", type=several(positive), help="values of K (5,10)")
    add("--threads", type=positive, default=torch.get_num_threads(), help="of the CPU")
    add("--device", type=device, default="cpu", help="cpu, cuda or cuda:N")
    add("--seconds", type=duration, help="of each row, beside its warm-up (10)")
    add("--blocks", type=positive, help="of each contender of a row, in place of seconds")
    add("--quick", action="store_true", help="fc400, K = 5, few blocks")
    add("--rss", action="store_true", help="also the peak resident memory of each row, in a process of its own")
    add("--table", action="store_true", help="only the table of methods")
    add("--loop", action="store_true", help="only what `metvae train` adds to its iterations")
    add("--growth", action="store_true", help="only how the cost grows")
    add("--figure", type=file, metavar="FILE", help="draw the growth there")
    add("--json", type=file, metavar="FILE", help="write all numbers there")
    add("--set", dest="words", action="append", default=[], metavar="KEY=VALUE", help="word for every configuration")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status, 1 where a row could not be measured."""
    made = parser()
    asked = made.parse_args(argv)
    if asked.figure is not None and not asked.growth:
        made.error("--figure: draws what --growth measures; say --growth too")
    if asked.threads > (os.cpu_count() or 1):
        made.error(f"--threads {asked.threads}: this machine has {os.cpu_count()}")
    asked.net = asked.net or (["fc400"] if asked.quick else [*NETS])
    asked.steps = asked.steps or ([5] if asked.quick else [5, 10])
    asked.seconds = asked.seconds or (1.5 if asked.quick else 10.0)
    try:
        with TemporaryDirectory() as folder:
            report = measure(asked, Machine(asked.device, asked.threads, write_images(Path(folder))))
    except ConfigError as error:
        made.error(str(error))
    if asked.json is not None:
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if any("error" in row for part in ("rows", "loop", "growth") for row in report.get(part, [])) else 0


def measure(asked: argparse.Namespace, machine: Machine) -> Report:
    """All that was asked for, printed as it comes."""
    report: Report = {"machine": machine_lines(machine.device, machine.threads)}
    print("  ".join(f"{name}: {value}" for name, value in report["machine"].items()), flush=True)
    every = not (asked.table or asked.loop or asked.growth)
    budget, words = Budget(asked.seconds, asked.blocks), tuple(asked.words)
    if asked.table or every:
        report["rows"] = table(asked, machine, budget, words)
    if asked.loop or every:
        report["loop"] = through_the_loop(asked, machine, budget, words)
    if asked.growth:
        report["growth"] = grow(asked, machine, budget, words)
    report["machine"]["load_at_end"] = load()
    print(f"load_at_end: {load()}")
    return report


def table(asked: argparse.Namespace, machine: Machine, budget: Budget, words: tuple[str, ...]) -> list[Report]:
    """Every method beside its floor."""
    memory = "allocated by an iteration" if machine.device != "cpu" else "kept for the backward pass"
    print(f"ms: of an iteration; floor: least work of the same kind; peak MB: {memory}; others: busy cores", flush=True)
    print(rows.HEAD + ("   RSS MB" if asked.rss else ""), flush=True)
    found = []
    for case in cases(asked.net, asked.methods or [*METHODS], asked.steps, words):
        found.append(
            attempt(
                case,
                lambda case=case: rows.record(rows.measure(case, machine, budget, rss=asked.rss)),
                lambda row: rows.line(rows.Row(**row)),
            )
        )
    return found


def attempt(case: Case, measured: Callable[[], Report], line: Callable[[Report], str]) -> Report:
    """A row, printed; of one that cannot be measured the reason, under `error`. The others go on."""
    try:
        row = measured()
    except NotMeasuredError as error:
        row = {"net": case.net, "method": case.method, "steps": case.steps, "error": str(error)}
        print(f"{case.net:6}{case.method:12}{case.steps:3}  not measured: {error}", flush=True)
    else:
        print(line(row), flush=True)
    return row


def through_the_loop(
    asked: argparse.Namespace, machine: Machine, budget: Budget, words: tuple[str, ...]
) -> list[Report]:
    """What data, logs and progress add, for a cheap and a dear method unless others were named."""
    methods = asked.methods or [*LOOP_METHODS]
    print("through `metvae train`\n" + loop.HEAD, flush=True)
    found = []
    for case in cases(asked.net, methods, asked.steps[:1], words):
        iterations = LOOP_ITERATIONS[case.net] // (10 if asked.quick else 1)
        found.append(
            attempt(
                case, lambda case=case, count=iterations: loop.measure_loop(case, machine, budget, count), loop.line
            )
        )
    return found


def grow(asked: argparse.Namespace, machine: Machine, budget: Budget, words: tuple[str, ...]) -> list[Report]:
    """How the cost of L-MCVAE grows."""
    found = []
    for net in asked.net:
        sweeps = (growth.QUICK if asked.quick else growth.VALUES)[net]
        threads = {} if asked.quick or machine.device != "cpu" else {"threads": growth.thread_counts()}
        for quantity, values in (sweeps | threads).items():
            found.append(
                attempt(
                    Case(net, quantity, growth.STEPS),
                    lambda net=net, of=(quantity, values): growth.measure_growth(net, *of, machine, budget, words),
                    lambda grown: "\n".join(growth.lines(grown)),
                )
            )
    if asked.figure is not None:
        growth.draw([one for one in found if "error" not in one], asked.figure)
    return found


if __name__ == "__main__":
    sys.exit(main())
