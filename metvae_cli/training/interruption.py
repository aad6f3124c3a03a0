"""Ctrl-C and SIGTERM: finish the iteration, save, and leave with the right exit status."""

import signal
import time
from pathlib import Path
from types import FrameType, TracebackType

from metvae_cli.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOOK_EVERY = 0.5  # seconds
# Seconds within which a signal that comes again is the same one, sent to a process and passed on by its parent.
_AGAIN = 1.0


class Interruption:
    """While active, the first signal is noted and the second acts as it would have without us.

    with Interruption() as interruption:
        ...                                  # interruption.signum is not None once a signal came

    Args:
        stop: a file that stands for a signal as soon as it exists, and holds its number
        is_passed_on: by a parent that gets it too: what comes again at once is no second one
    """

    def __init__(self, stop: Path | None = None, *, is_passed_on: bool = False) -> None:
        self._is_passed_on = is_passed_on
        self._noted = -_AGAIN
        self.signum: int | None = None
        self._stop = stop
        self._looked = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def asked(self) -> int | None:
        """The number of the signal that came, if one did."""
        if self._stop is not None and self.signum is None and time.monotonic() - self._looked > _LOOK_EVERY:
            self._looked = time.monotonic()
            self.signum = asked_to_stop(self._stop)
        return self.signum

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if (signum := self.asked()) is not None:
            raise Interrupted(signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if not self._is_passed_on:
            self.signum = signum
            self._restore()
        elif self.signum is None:
            self.signum, self._noted = signum, time.monotonic()
        elif time.monotonic() - self._noted > _AGAIN:
            self._restore()
            signal.raise_signal(signum)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._previous.clear()


def asked_to_stop(stop: Path) -> int | None:
    """The number of the signal in such a file; None if there is none."""
    try:
        return int(stop.read_text() or signal.SIGTERM)
    except FileNotFoundError:
        return None
