"""Ctrl-C, SIGTERM and what batch systems send: finish the iteration, save, and leave with the right exit status."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from metvae_cli.errors import Interrupted

# The last two are what users have a batch system send before a job's time is over (Slurm: --signal=USR1@120).
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_LOOK_EVERY = 0.5  # seconds
# Seconds within which a signal that comes again is the same one, sent to a process and passed on by its parent.
_AGAIN = 1.0


def requeuing_signal(environment: Mapping[str, str] = os.environ) -> signal.Signals | None:
    """The one at which submitit puts a job of its own back into the queue; None outside of such a job."""
    if "SUBMITIT_EXECUTOR" not in environment:
        return None
    return signal.Signals[f"SIG{environment.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def stopping_signals(environment: Mapping[str, str] = os.environ) -> tuple[signal.Signals, ...]:
    """Those that ask to save and stop."""
    return tuple(number for number in _SIGNALS if number != requeuing_signal(environment))


class Interruption:
    """While active, the first signal is noted and the second acts as it would have without us.

    with Interruption() as interruption:
        ...                                  # interruption.signum is not None once a signal came

    Inside of another, what came too late to be looked for is passed on to the outer one.

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
        self._raises = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        for number in stopping_signals():
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        previous, self._previous = self._previous, {}
        for number, handler in previous.items():
            signal.signal(number, handler)
        if kind is None and self.signum is not None and (outer := _interruption(previous.get(self.signum))):
            outer._note(self.signum, None)

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

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, Interrupted is raised wherever a signal finds the program: for work that has nothing to be saved."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if self.signum is None:
            self.signum, self._noted = signum, time.monotonic()
            if not self._is_passed_on:
                self._step_aside()
            if self._raises:
                raise Interrupted(signum)
        elif time.monotonic() - self._noted > _AGAIN:
            self._step_aside()
            signal.raise_signal(signum)

    def _step_aside(self) -> None:
        """Let the next signal act as if there were neither us nor another one around us."""
        for number in self._previous:
            signal.signal(number, self._without_us(number))

    def _without_us(self, number: int) -> Any:
        handler = self._previous.get(number, signal.SIG_DFL)
        outer = _interruption(handler)
        return handler if outer is None else outer._without_us(number)


def _interruption(handler: object) -> Interruption | None:
    """Whose handler it is, if it is that of an Interruption."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Interruption) else None


def asked_to_stop(stop: Path) -> int | None:
    """The number of the signal in such a file; None if there is none."""
    try:
        return int(stop.read_text() or signal.SIGTERM)
    except FileNotFoundError:
        return None
