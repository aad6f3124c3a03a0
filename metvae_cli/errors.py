"""The ways a run ends before its time: what was asked cannot be done, it failed, it was pruned, it was interrupted."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def printable(text: str) -> str:
    """Text in one line with nothing in it that a terminal would obey: names in files may be anybody's."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))


class ConfigError(Exception):
    """What was asked cannot be done. One line: key, value and remedy. The command exits with status 2."""


class RunError(Exception):
    """A run that had started could not go on. One line with the reason. The command exits with status 1."""


class Pruned(Exception):
    """A search stopped the run, which was behind the others; its checkpoints are kept. A good end, not a failure.

    value: its best validation bound
    """

    def __init__(self, reason: str, value: float) -> None:
        super().__init__(reason)
        self.value = value


class Interrupted(BaseException):
    """The run was asked to stop and has saved its state. The command exits with status 128 + signum.

    No Exception: a sweep goes on after the exception of one job, and is to stop after this.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int]]:
        # A launcher that runs jobs in processes of their own sends it between them.
        return Interrupted, (self.signum,)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside, an OSError that names no file, as that of a full disk, gets the name of this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
