"""The terminal: one console for log lines and the progress bar, so that neither writes over the other."""

import functools
import logging
import sys
from contextlib import suppress

from rich.console import Console


@functools.cache
def console() -> Console:
    """The console on standard error; results alone go to standard output."""
    return Console(stderr=True)


class ConsoleHandler(logging.Handler):
    """Log lines above the progress bar; lines are not wrapped or coloured."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record. What has a traceback goes to the run's own log only; what follows from it has a line."""
        if record.exc_info:
            return
        console().print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


class LogFile(logging.FileHandler):
    """A run's log. That it cannot be written is said once: the run goes on, and ends where more than a line is lost."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say it, in place of a traceback for each line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            console().print(f"{self.baseFilename}: cannot be written ({error.strerror})", markup=False, soft_wrap=True)

    def close(self) -> None:
        """Close, whether or not what is waiting can be written."""
        with suppress(OSError):
            super().close()
