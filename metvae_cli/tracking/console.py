"""The terminal: one console for log lines and the progress bar, so that neither writes over the other."""

import functools
import logging

from rich.console import Console


@functools.cache
def console() -> Console:
    """The console on standard error; results alone go to standard output."""
    return Console(stderr=True)


class ConsoleHandler(logging.Handler):
    """Log lines above the progress bar; lines are not wrapped or coloured."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; a traceback goes to the run's own log only."""
        console().print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)
