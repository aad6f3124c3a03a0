"""Processes that kill themselves at a chosen point of writing a file."""

import builtins
import fnmatch
import io
import os
import signal
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Death:
    """Called in a process: from then on it dies, as by `kill -9`, at a moment of writing a file.

    moment: half (of what is written at once has been), written (all of it, nothing flushed to the disk), synced,
        replaced (it has just taken its place), folder (the names in a directory are about to be flushed)
    name: pattern of the file's name; for `replaced` the name that it gets, for `folder` the directory's
    turn: which time
    """

    moment: str
    name: str
    turn: int

    def __str__(self) -> str:
        return "-".join(map(str, astuple(self)))

    def __call__(self) -> None:
        """Replace what writes in this process."""
        left = [self.turn]

        def dies(name: str) -> bool:
            left[0] -= fnmatch.fnmatch(name, self.name)
            return left[0] == 0 and fnmatch.fnmatch(name, self.name)

        if self.moment == "half":
            opened = _opening(io.open, dies)
            io.open = builtins.open = opened
        elif self.moment == "replaced":
            Path.replace = _replacing(Path.replace, dies)
        else:
            os.fsync = _syncing(os.fsync, dies, after=self.moment == "synced")


def die() -> None:
    """As by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def _opening(real: Callable[..., Any], dies: Callable[[str], bool]) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        found = real(file, mode, *arguments, **options)
        if "r" in mode or isinstance(file, int) or not dies(Path(os.fsdecode(file)).name):
            return found
        write = found.write

        def half(content: Any) -> None:
            write(content[: len(content) // 2])
            found.flush()
            die()

        return _Half(found, half)

    return opened


class _Half:
    """A file that writes in another way."""

    def __init__(self, file: Any, write: Callable[[Any], None]) -> None:
        self._file, self.write = file, write

    def __enter__(self) -> "_Half":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _replacing(real: Callable[..., Any], dies: Callable[[str], bool]) -> Callable[..., Any]:
    def replace(self: Path, target: Path) -> Any:
        found = real(self, target)
        if dies(Path(target).name):
            die()
        return found

    return replace


def _syncing(real: Callable[[int], None], dies: Callable[[str], bool], *, after: bool) -> Callable[[int], None]:
    def fsync(number: int) -> None:
        is_last = dies(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        if is_last and not after:
            die()
        real(number)
        if is_last:
            die()

    return fsync
