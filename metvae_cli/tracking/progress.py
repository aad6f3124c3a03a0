"""Progress of work that is no training: a bar with the time left on a terminal, a line now and then elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from metvae_cli.tracking.console import console

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def progress(name: str, total: float, check: Callable[[], None]) -> Iterator[Callable[[float], None]]:
    """Gives a function to call with how much of `total` is done.

    Args:
        name: of the work
        total: how much there is, in its own unit
        check: called each time too; may raise to stop the work
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    started = reported = time.monotonic()
    terminal = console().is_terminal
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console(), disable=not terminal, transient=True
    ) as bar:
        task = bar.add_task(name, total=total)

        def report(done: float) -> None:
            nonlocal reported
            check()
            bar.update(task, completed=done)
            now = time.monotonic()
            if not terminal and done > 0 and now - reported > _SECONDS_BETWEEN_LINES:
                reported = now
                left = (now - started) * (total - done) / done
                log.info("%s: %.0f %% done, %.0f s left", name, 100 * done / total, left)

        yield report
    log.info("%s: done in %.1f s", name, time.monotonic() - started)
