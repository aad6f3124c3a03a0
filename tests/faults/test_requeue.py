"""A job of submitit's that is told to make room: put back into the queue once, and resumed bit by bit."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.endings import assert_same_end, status, wait_for_epoch
from tests.runs import TINY, command, environment

WORDS = ("train", "-m", *TINY, "trainer.max_epochs=8", "trainer.checkpoint_seconds=0.1", "seed=0,1")
LOCAL = ("hydra/launcher=local_processes", "hydra.sweeper.max_batch_size=1", "hydra.sweep.dir=sweep")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep that nobody touched."""
    here = tmp_path_factory.mktemp("straight")
    subprocess.run(
        command(*WORDS, "hydra.sweep.dir=sweep"), cwd=here, env=environment(), check=True, capture_output=True
    )
    return here / "sweep"


def sweep(here: Path, number: signal.Signals, requeues: str) -> "subprocess.CompletedProcess[str]":
    """A sweep by submitit whose first job gets a signal. requeues: the signal that submitit takes for its own."""
    words, surroundings = command(*WORDS, *LOCAL), environment() | {"SUBMITIT_PREEMPT_SIGNAL": requeues}
    with subprocess.Popen(
        words, cwd=here, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        job = here / "sweep" / "00_seed=0"
        wait_for_epoch(job, 1)
        os.kill(int((job / ".lock").read_text().split()[1]), number)
        out, errors = process.communicate(timeout=200)
    return subprocess.CompletedProcess(words, process.returncode, out, errors)


def starts(job: Path) -> int:
    return len(json.loads((job / "manifest.json").read_text())["starts"])


@pytest.mark.slow
def test_the_signal_that_a_cluster_was_told_to_send_puts_a_job_back_once(tmp_path: Path, straight: Path) -> None:
    """Also where it is one at which a run outside of submitit saves and stops."""
    result = sweep(tmp_path, signal.SIGUSR1, "USR1")
    assert result.returncode == 0, result.stderr
    found = [tmp_path / "sweep" / job for job in ("00_seed=0", "01_seed=1")]
    assert [starts(job) for job in found] == [2, 1]
    for job in found:
        assert_same_end(job, straight / job.name)
    said = "".join(path.read_text() for path in (tmp_path / "sweep" / ".submitit").rglob("*.out"))
    assert "Requeued job" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_stop_saves_a_job_which_waits_for_the_sweep_to_go_on(
    tmp_path: Path, straight: Path, number: signal.Signals
) -> None:
    result = sweep(tmp_path, number, "USR2")
    found = [tmp_path / "sweep" / job for job in ("00_seed=0", "01_seed=1")]
    assert (result.returncode, [status(job) for job in found]) == (1, ["interrupted", "finished"]), result.stderr
    assert [starts(job) for job in found] == [1, 1]
    assert "1 interrupted, 1 finished" in result.stdout
    again = command(*WORDS, "sweep.resume=sweep")
    subprocess.run(again, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    for job in found:
        assert_same_end(job, straight / job.name)
