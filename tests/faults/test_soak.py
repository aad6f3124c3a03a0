"""A long run: sweeps on a busy machine, killed every few seconds and started again, until every job has ended.

METVAE_SOAK_MINUTES says how long (1); `pytest -s` shows what was done to them.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.endings import jobs_of, status
from tests.faults.whole_runs import assert_same_run
from tests.runs import TINY, command, environment

MINUTES = float(os.environ.get("METVAE_SOAK_MINUTES", "1"))
WORDS = (
    *TINY,
    "trainer.max_epochs=20",
    "trainer.checkpoint_seconds=0.1",
    "trainer.threads=1",
    "sampler=hmc,langevin",
    "seed=0,1",
)
LAUNCHERS = ((), ("hydra/launcher=local_jobs",))
KINDS = {"everything": "the whole sweep", "sweep": "its process alone", "job": "one job's process"}
LONGEST_ROUND = 40  # kills, after which a sweep is let come to its end


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that leave no core alone."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def start(here: Path, launcher: tuple[str, ...]) -> "subprocess.Popen[str]":
    """The same command each time: it goes on with what is there."""
    is_new = not (here / "sweep" / "sweep.json").exists()
    if is_new:
        shutil.rmtree(here / "sweep", ignore_errors=True)  # killed before it was a sweep
    place = "hydra.sweep.dir=sweep" if is_new else "sweep.resume=sweep"
    said = (here / "said.txt").open("a")
    with said:
        return subprocess.Popen(
            command("train", "-m", *WORDS, *launcher, place),
            cwd=here,
            env=environment(),
            text=True,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def kill(process: "subprocess.Popen[str]", sweep: Path, generator: random.Random) -> str:
    """Kill the sweep with all that belongs to it, its process alone, or one of its jobs; which."""
    running = [int(path.read_text().split()[1]) for path in sweep.glob("*/.lock") if path.read_text()]
    jobs = [pid for pid in running if pid != process.pid]
    kinds = ["everything"] * 2 + ["sweep"] + ["job"] * (3 if jobs else 0)
    kind = generator.choice(kinds)
    with suppress(ProcessLookupError):
        if kind == "everything":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(generator.choice(jobs) if kind == "job" else process.pid, signal.SIGKILL)
    return kind


def soak(here: Path, launcher: tuple[str, ...], generator: random.Random, end: float) -> Counter[str]:
    """One sweep to its end, with what was done to it."""
    done: Counter[str] = Counter()
    last = time.monotonic() + 240
    while True:
        assert time.monotonic() < max(end, last) + 120, (here / "said.txt").read_text()[-3000:]
        process = start(here, launcher)
        done["starts"] += 1
        while process.poll() is None and done["kills"] < LONGEST_ROUND:
            with suppress(subprocess.TimeoutExpired):
                process.wait(generator.uniform(0.5, 8))
            if process.poll() is None:
                done["kills"] += 1
                done[kill(process, here / "sweep", generator)] += 1
        status_of_all = process.wait(300)
        if status_of_all == 0:
            return done
        assert status_of_all in (1, -signal.SIGKILL), (here / "said.txt").read_text()[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(int(60 * MINUTES) + 900)
def test_sweeps_that_are_killed_again_and_again_end_as_if_nobody_had_touched_them(tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    assert start(quiet, ()).wait(300) == 0
    expected = jobs_of(quiet / "sweep")
    generator, end, done = random.Random(0), time.monotonic() + 60 * MINUTES, Counter[str]()
    with busy(2):
        while time.monotonic() < end:
            here = tmp_path / f"round_{done['sweeps']}"
            here.mkdir()
            done += soak(here, LAUNCHERS[done["sweeps"] % len(LAUNCHERS)], generator, end)
            done["sweeps"] += 1
            found = jobs_of(here / "sweep")
            assert [job.name for job in found] == [job.name for job in expected]
            assert {status(job) for job in found} == {"finished"}
            for job, alike in zip(found, expected, strict=True):
                assert_same_run(job, alike)
                done["jobs"] += 1
            shutil.rmtree(here)
    assert done["kills"] > 0
    kinds = ", ".join(f"{done[kind]} of {what}" for kind, what in KINDS.items())
    print(
        f"\nsoak: {MINUTES:g} minutes, {done['sweeps']} sweeps, {done['jobs']} jobs, {done['kills']} kills ({kinds}), "
        f"{done['starts'] - done['sweeps']} restarts; every job ended bit by bit as the quiet sweep's"
    )
