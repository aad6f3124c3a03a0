"""Signals that come at a chosen place of a run."""

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Asked:
    """Called in a process: from then on signals come when a function is called.

    numbers: of the signals, one right after the other
    place: the function, like package.module.Class.name
    turn: at which call
    after: whether they come when it has done its work, or before that
    note: a file that gets the time at which they came
    """

    numbers: tuple[int, ...]
    place: str
    turn: int = 1
    after: bool = False
    note: Path | None = None

    def __str__(self) -> str:
        return "-".join([self.place.rpartition(".")[2], *map(str, self.numbers)])

    def __call__(self, patch: pytest.MonkeyPatch | None = None) -> None:
        """Replace the function. patch: where it is to be put back again"""
        left, (owner, name) = [self.turn], _owner(self.place)
        real: Callable[..., Any] = getattr(owner, name)

        def asked(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0]:
                return real(*arguments, **options)
            result = real(*arguments, **options) if self.after else None
            if self.note is not None:
                self.note.write_text(str(time.monotonic()))
            for number in self.numbers:
                os.kill(os.getpid(), number)
            return result if self.after else real(*arguments, **options)

        (patch or pytest.MonkeyPatch()).setattr(owner, name, asked)


def _owner(place: str) -> tuple[Any, str]:
    """What holds a function, and its name there."""
    parts = place.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:-1]:
            found = getattr(found, name)
        return found, parts[-1]
    raise AssertionError(place)
