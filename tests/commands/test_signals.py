"""Runs that are interrupted or killed, in processes of their own: what they save, and where a resume ends."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metvae_cli.errors import Interrupted
from metvae_cli.training.checkpoint import load_checkpoint
from metvae_cli.training.interruption import Interruption
from tests.endings import assert_same_end, status, wait_for_epoch
from tests.runs import TINY, command, environment, files, metvae, start, train

WORDS = (*TINY, "trainer.max_epochs=12", "trainer.checkpoint_seconds=0.1")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    here = tmp_path_factory.mktemp("straight")
    subprocess.run(command("train", *WORDS, "hydra.run.dir=run"), cwd=here, env=environment(), check=True)
    return here / "run"


def resume(folder: Path) -> None:
    """In a process like the first."""
    words = command("train", f"resume={folder}")
    result = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_run_which_a_resume_completes(
    tmp_path: Path, straight: Path, number: signal.Signals
) -> None:
    process = start(tmp_path, "train", *WORDS, "hydra.run.dir=run")
    folder = tmp_path / "run"
    wait_for_epoch(folder, 1)
    sent = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert f"metvae: stopped by {number.name}" in errors.splitlines()[-1]
    assert status(folder) == "interrupted"
    assert ".lock" not in files(folder)
    assert 0 < load_checkpoint(folder / "checkpoints" / "last.pt")["state"]["epoch"] < 12
    resume(folder)
    assert_same_end(folder, straight)


def kill_and_resume(here: Path, straight: Path, seed: int) -> None:
    """Kill at a random instant of training, twice, then resume to the end."""
    generator, folder = random.Random(seed), here / "run"
    words = ("train", *WORDS, "hydra.run.dir=run")
    for _ in range(2):
        process = start(here, *words)
        checkpoint = folder / "checkpoints" / "last.pt"
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 1.5))
        process.kill()
        process.communicate()
        words = ("train", "resume=run")
    resume(folder)
    assert_same_end(folder, straight)


@pytest.mark.slow
def test_a_killed_run_is_completed_by_a_resume(tmp_path: Path, straight: Path) -> None:
    """As a shell starts it. Many more instants are those of `tests/faults/test_kills.py`."""
    kill_and_resume(tmp_path, straight, seed=0)


def signal_at_first_iteration(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A signal arrives whenever an iteration ends."""
    check = Interruption.check

    def signalled(self: Interruption) -> None:
        if self.signum is None:
            os.kill(os.getpid(), number)
        check(self)

    monkeypatch.setattr(Interruption, "check", signalled)


def test_a_signal_ends_a_whole_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    signal_at_first_iteration(monkeypatch, signal.SIGINT)
    assert train("-m", "seed=0,1,2", "hydra.sweep.dir=sweep") == 130
    assert status(tmp_path / "sweep" / "00_seed=0") == "interrupted"
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == {"00_seed=0", "multirun.yaml", "sweep.json"}
    printed = capsys.readouterr()
    assert "stopped by SIGINT" in printed.err
    assert "1 interrupted, 2 not begun" in printed.out
    assert "metvae train -m sweep.resume=sweep" in printed.out.splitlines()[-1]


def test_a_signal_while_the_test_data_are_measured_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("metvae_cli.training.trainer.Trainer.load_weights", lambda self, name: os.kill(os.getpid(), 15))
        assert train("hydra.run.dir=run") == 143
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["state"]["epoch"] == 2
    assert metvae("train", "resume=run") == 0
    assert status(tmp_path / "run") == "finished"


@pytest.fixture
def own_interrupt() -> Iterator[None]:
    """Python's own handler of SIGINT: a shell that starts the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_that_a_parent_passes_on_too_is_one(own_interrupt: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with Interruption(is_passed_on=True) as interruption:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signum == signal.SIGINT
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 5)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_first_signal_is_noted_and_the_second_acts(own_interrupt: None) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signum == signal.SIGINT
        with pytest.raises(Interrupted) as caught:
            interruption.check()
        assert (caught.value.signum, str(caught.value)) == (signal.SIGINT, "SIGINT")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
