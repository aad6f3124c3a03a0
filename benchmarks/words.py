"""What programs of `benchmarks` with options make of their words; they refuse one in one line, with status 2."""

import argparse
import contextlib
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from metvae_cli.schema import did_you_mean

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"bench: error: {message}\n")


def several(one: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Words with commas between them."""

    def read(text: str) -> list[T]:
        return [one(word) for word in text.split(",")]

    return read


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """A word of these."""

    def read(word: str) -> str:
        if word not in choices:
            raise argparse.ArgumentTypeError(f"no {word!r}{did_you_mean(word, choices)}")
        return word

    return read


def positive(word: str) -> int:
    """A count."""
    if not (word.isascii() and word.isdigit() and int(word) > 0):
        raise argparse.ArgumentTypeError(f"{word!r} is not a positive whole number")
    return int(word)


def duration(word: str) -> float:
    """Seconds."""
    value = -1.0
    with contextlib.suppress(ValueError):
        value = float(word)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{word!r} is not a positive number of seconds")
    return value
