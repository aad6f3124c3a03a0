"""A disk that is full, at each place where a run writes: one line, and a whole checkpoint to go on from."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metvae_cli.commands import evaluate_run, sample_run, train_run
from metvae_cli.tracking.console import LogFile
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.run_directory import RunDirectory
from metvae_cli.tracking.tracker import RunTracker
from metvae_cli.training import trainer
from metvae_cli.training.checkpoint import load_checkpoint
from tests.endings import assert_same_end, status
from tests.faults.mounts import fill, mounted
from tests.runs import TINY, command, environment, files, metvae, train

WORDS = ("hydra.run.dir=run", "dataset.batch_size=64", "trainer.picture_every=1", "trainer.log_every=1")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing befell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here := tmp_path_factory.mktemp("straight"))
        assert train(*WORDS) == 0
        return here / "run"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of six megabytes, and the working directory on it."""
    with mounted(tmp_path / "disk", "size=6m") as place, monkeypatch.context() as patch:
        patch.chdir(place)
        yield place


def full_before(patch: pytest.MonkeyPatch, owner: Any, name: str, time: int = 1) -> None:
    """Let the working directory's disk be full from a call of a function on."""
    real, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def called(*arguments: Any, **named: Any) -> Any:
        if next(calls) == time:
            fill(Path())
        return real(*arguments, **named)

    patch.setattr(owner, name, called)


def fails(expected_status: int, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The last line that a command on a full disk ends with; there is no traceback."""
    capsys.readouterr()
    assert metvae(*words) == expected_status
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert [line for line in printed.err.splitlines() if "error" in line] == printed.err.splitlines()[-1:]
    line = printed.err.splitlines()[-1]
    assert "cannot be written (No space left on device)" in line
    assert "free some space" in line
    return line


@pytest.mark.parametrize("words", [("train", *TINY, *WORDS), ("infer", "hydra.run.dir=run")])
def test_at_the_start_nothing_begins(words: tuple[str, ...], disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(disk)
    assert "hydra.run.dir=" in fails(2, capsys, *words)
    assert files(disk) == {"balloon"}


def test_before_the_first_checkpoint_the_same_words_start_anew(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        full_before(patch, RunDirectory, "write_manifest")
        assert "run/manifest.json: " in fails(1, capsys, "train", *TINY, *WORDS)
    (disk / "balloon").unlink()
    assert train(*WORDS, "trainer.max_epochs=1") == 0


# Where it is full from, the file that the line names, and the epochs of the checkpoint that is there then. Of what is
# written before a checkpoint, how much fits into the last block of a file is chance: the disk is full from there on.
PLACES = {
    "checkpoint": (trainer, "save_checkpoint", 4, "run/checkpoints/best.pt", 1),
    "last checkpoint": (trainer, "save_checkpoint", 3, "run/checkpoints/last.pt", 0),
    "metrics": (MetricsFile, "append", 2, "run/", 1),
    "log": (LogFile, "emit", 3, "run/", 1),
    "validation": (RunTracker, "log_weights", 2, "run/", 1),
    "pictures": (RunTracker, "pictures", 1, "run/events.out.tfevents.", 0),
    "last pictures": (train_run, "conclude", 1, "run/", 2),
}
QUICK = ("checkpoint", "pictures")


@pytest.mark.parametrize(
    "place", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PLACES]
)
def test_a_run_fails_with_its_checkpoint_whole_and_is_gone_on_with(
    place: str, disk: Path, straight: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, name, time, named, epochs = PLACES[place]
    with monkeypatch.context() as patch:
        full_before(patch, owner, name, time)
        line = fails(1, capsys, "train", *TINY, *WORDS)
    assert named in line
    assert "go on with: metvae train resume=" in line
    found = json.loads((disk / "run" / "status.json").read_text())
    assert found["status"] == "failed"
    assert "No space left on device" in found["reason"]
    assert load_checkpoint(disk / "run" / "checkpoints" / "last.pt")["state"]["epoch"] == epochs
    assert not [name for name in files(disk) if name.endswith((".tmp", ".lock"))]
    (disk / "balloon").unlink()
    assert metvae("train", "resume=run") == 0
    assert_same_end(disk / "run", straight)


def test_what_is_written_of_a_trained_model_says_so_too(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*WORDS, "trainer.max_epochs=1") == 0
    part = ("run=run", "estimators=[importance]", "diagnostics=[]", "data=3", "importance.num_samples=3")
    for owner, name, words in (
        (sample_run, "draw", ("sample", "run=run", "pictures=[prior]", "hydra.run.dir=made")),
        (evaluate_run, "_head", ("evaluate", *part, "hydra.run.dir=measured")),
    ):
        with monkeypatch.context() as patch:
            full_before(patch, owner, name)
            line = fails(1, capsys, *words)
        folder = words[-1].partition("=")[2]
        assert f"disk/{folder}" in line
        assert status(disk / folder) == "failed"
        (disk / "balloon").unlink()
        assert metvae(*words) == 0


LIMITED = """\
import resource, sys
from metvae_cli import cli
from metvae_cli.training import trainer
save, calls = trainer.save_checkpoint, iter(range(1, 100))
def limited(path, content):  # here: the events, which are longer, have been written by now
    if next(calls) == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    save(path, content)
trainer.save_checkpoint = limited
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_said_and_leaves_the_checkpoint(tmp_path: Path, straight: Path) -> None:
    words = [command()[0], "-c", LIMITED, "train", *TINY, *WORDS]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert "best.pt: cannot be written (File too large); raise the limit" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert status(tmp_path / "run") == "failed"
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["state"]["epoch"] == 1
    assert metvae("train", f"resume={tmp_path / 'run'}") == 0
    assert_same_end(tmp_path / "run", straight)


def test_the_judge_sees_a_writer_that_is_not_atomic(disk: Path) -> None:
    """A file that is written over in its place is no checkpoint after that."""
    train(*WORDS, "trainer.max_epochs=1")
    path = disk / "run" / "checkpoints" / "last.pt"
    data, balloon = path.read_bytes(), fill(disk)
    with pytest.raises(OSError, match="No space left"), path.open("wb") as file:  # noqa: PT012
        file.write(data + bytes(4096))
        file.flush()
        os.fsync(file.fileno())
    balloon.unlink()
    with pytest.raises(Exception, match="truncated"):
        load_checkpoint(path)
