"""Runs in processes of their own that can be killed, forked from one that has imported what a run needs.

A start of Python with torch costs seconds; forked, a tiny run takes one and a half from its first line to its last.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from metvae_cli import cli
from tests.runs import environment

_IMPORTED = ("train_run", "train_likelihood", "evaluate_run", "sample_run", "infer_run", "sweep")
LONGEST = 120.0  # seconds in which anything awaited has come, on a machine that does much else


def metvae_process(here: Path, *words: str, prepare: Callable[[], None] | None = None) -> BaseProcess:
    """Start `metvae WORDS` in the folder `here`; what it says goes to `said.txt` there.

    prepare: called in the process before anything else
    """
    make_ready()
    process = multiprocessing.get_context("forkserver").Process(target=_run, args=(here, words, prepare))
    process.start()
    return process


def make_ready() -> None:
    """Have the process that is forked import what a run needs."""
    multiprocessing.set_forkserver_preload(["sklearn.datasets", *(f"metvae_cli.commands.{name}" for name in _IMPORTED)])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        multiprocessing.forkserver.ensure_running()


def _run(here: Path, words: tuple[str, ...], prepare: Callable[[], None] | None) -> None:
    os.setsid()
    os.chdir(here)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if prepare is not None:
        prepare()
    sys.exit(cli.main(list(words)))


def ended(process: BaseProcess) -> int:
    """Wait for its end; its exit status, negative where a signal ended it."""
    process.join(LONGEST)
    assert process.exitcode is not None
    return process.exitcode


def await_that(happened: Callable[[], bool], process: BaseProcess) -> None:
    """Until something has happened, or the process has ended."""
    end = time.monotonic() + LONGEST
    while process.is_alive() and not happened():
        assert time.monotonic() < end
        time.sleep(0.002)
