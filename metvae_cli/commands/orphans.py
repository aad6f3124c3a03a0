"""Processes of a launcher that have lost the one that started them: they end as soon as they have no job.

A worker of joblib waits for its next job behind locks. Where the process of the sweep was killed, nobody opens these
any more: it would wait, and keep its memory, for ever.
"""

import functools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_LOOK_EVERY = 1.0  # seconds


@contextmanager
def job_of(parent: int) -> Iterator[None]:
    """Inside, this process has a job; afterwards it ends once its parent, if that was the process `parent`, is gone.

    A job that a lost process still finds in its queue is not begun: the sweep may have been started again elsewhere.
    """
    with _busy():
        if os.getppid() == parent:
            _watch(parent)
        elif _watch.cache_info().currsize:
            os._exit(0)
        yield


@functools.cache
def _busy() -> threading.Lock:
    return threading.Lock()


@functools.cache
def _watch(parent: int) -> None:
    """Begin to look after the parent: once, for all jobs of the process."""
    threading.Thread(target=_end_after, args=(parent,), daemon=True, name="orphan").start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    with _busy():
        os._exit(0)  # without waiting for what the launcher would wait for
