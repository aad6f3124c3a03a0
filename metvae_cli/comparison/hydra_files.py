"""What Hydra wrote: which choices a run was composed of, and which jobs a sweep has.

Lines are read as Hydra lays them out, since a YAML parser takes longer than all the rest.
"""

import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metvae_cli.comparison.foreign import read_bounded
from metvae_cli.errors import printable

# How a sweep's file says which command it is of; other commands make no runs.
_TRAINING = {"    config_name: train", "    config_name: infer"}
_MOST_JOBS = 100_000


@dataclass(frozen=True)
class Composition:
    """What a run was composed of.

    Args:
        choices: group -> the name chosen from it, defaults included
        typed: keys and groups that stood on the command line
    """

    choices: Mapping[str, str] = field(default_factory=dict)
    typed: frozenset[str] = frozenset()


def read_composition(folder: Path) -> Composition:
    """The composition of the run in a directory; empty where Hydra's files are not there."""
    lines = _lines(folder / ".hydra" / "hydra.yaml")
    choices: dict[str, str] = {}
    for line in _below(lines, "    choices:", "      "):
        group, separator, name = line.partition(": ")
        if separator and not group.startswith("hydra/") and name != "null":
            choices[group] = _scalar(name)
    typed = {word.partition("=")[0].lstrip("+~") for word in _task_words(lines)}
    return Composition(choices, frozenset(typed))


# A sweep's file is the same for all of its jobs, of which thousands may have ended before they wrote anything.
@functools.lru_cache(maxsize=64)
def sweep_words(folder: Path) -> tuple[tuple[str, ...], ...]:
    """The words of every job of the sweep in a directory, by its number; only those words that are swept over.

    Empty where no sweep is there or where its values are not plain lists.
    """
    lines = _lines(folder / "multirun.yaml")
    if not _TRAINING & set(lines):
        return ()
    alternatives = []
    for word in _task_words(lines):
        key, _, value = word.partition("=")
        if "(" in value:  # choice(...), range(...): what Hydra makes of them is Hydra's to know
            return ()
        values = list(_split_outside_brackets(value))
        alternatives.append([f"{key}={one.strip()}" if len(values) > 1 else "" for one in values])
    if math.prod(map(len, alternatives)) > _MOST_JOBS:
        return ()
    jobs = itertools.product(*alternatives) if alternatives else ()
    return tuple(tuple(word for word in job if word) for job in jobs)


def _lines(path: Path) -> list[str]:
    try:
        return [_printable(line) for line in read_bounded(path).decode().split("\n")]
    except (OSError, ValueError):
        return []


def _printable(line: str) -> str:
    """The line, and its indentation, without what a terminal would obey."""
    return line if line.isprintable() else " " * (len(line) - len(line.lstrip(" "))) + printable(line)


def _task_words(lines: list[str]) -> list[str]:
    """The words of the command line, without those for Hydra."""
    words: list[str] = []
    for line in _below(lines, "    task:", "    "):
        if line.startswith("- "):
            words.append(line[2:])
        elif words:  # a long word goes on in the next line
            words[-1] += f" {line.strip()}"
    return [_scalar(word) for word in words]


def _below(lines: list[str], header: str, indent: str) -> Iterator[str]:
    """The lines under a header, without their indentation."""
    if header not in lines:
        return
    for line in lines[lines.index(header) + 1 :]:
        if not line.startswith(indent) or (indent == "    " and not line.startswith(("    - ", "     "))):
            return
        yield line[len(indent) :]


def _scalar(text: str) -> str:
    """A YAML scalar without its quotes."""
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text[1:-1]
    return text


def _split_outside_brackets(value: str) -> Iterator[str]:
    """The parts between the commas of the outermost level."""
    depth, start = 0, 0
    for place, letter in enumerate(value):
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            yield value[start:place]
            start = place + 1
    yield value[start:]
