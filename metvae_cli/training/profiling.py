"""Where a few iterations of training spend their time: `trainer.profile=true`.

The profiler only watches: it draws no random numbers and changes no tensor. It looks at some warm iterations early in
the run (of this process) and is off for the rest.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

log = logging.getLogger(__name__)

WAIT, WARMUP, ACTIVE = 3, 2, 5  # iterations: left alone, watched without a record, recorded
TRACE, TABLE = "profile_trace.json.gz", "profile.txt"
_ROWS = 25


@contextmanager
def profiled(wanted: bool, folder: Path, show: Callable[[str, int], None]) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each iteration; without a profile it does nothing.

    Args:
        wanted: whether there is to be a profile
        folder: gets `profile_trace.json.gz` (for ui.perfetto.dev or chrome://tracing) and `profile.txt`
        show: given the table that is in `profile.txt`, and after how many iterations it was made
    """
    if not wanted:
        yield lambda: None
        return
    seen, done = 0, False

    def write(found: profile) -> None:
        nonlocal done
        done = True
        found.export_chrome_trace(str(folder / TRACE))
        by = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = found.key_averages().table(sort_by=by, row_limit=_ROWS, max_name_column_width=60)
        (folder / TABLE).write_text(table)
        show(table, seen)

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    plan = schedule(wait=WAIT, warmup=WARMUP, active=ACTIVE, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write, acc_events=True) as watching:

        def each_iteration() -> None:
            nonlocal seen
            seen += 1
            if not done:
                watching.step()

        yield each_iteration
    if not done:
        log.warning("no profile: it takes %d iterations, and the run had fewer", WAIT + WARMUP + 1)
