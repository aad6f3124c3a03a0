"""A run's directory belongs to one process at a time, and its JSON files are whole."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from metvae_cli.errors import ConfigError
from metvae_cli.tracking import run_directory
from metvae_cli.tracking.run_directory import RunDirectory, git_state, read_status, stop_file, write_json

HOLD = """\
import sys
from pathlib import Path
from metvae_cli.tracking.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    """A process that owns the directory until its input ends."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=pipe, stdout=pipe, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    return process


def test_a_directory_in_use_is_refused_until_its_owner_leaves(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    with (
        pytest.raises(ConfigError, match=rf"in use by another run \({socket.gethostname()} {process.pid}\)"),
        RunDirectory(tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "run" / ".lock").exists()
    process.communicate("")
    with RunDirectory(tmp_path / "run") as run:
        run.write_status("running")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["status.json"]


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.communicate()
    assert (tmp_path / ".lock").exists()
    with RunDirectory(tmp_path):
        assert (tmp_path / ".lock").read_text().split()[:2] == [socket.gethostname(), str(os.getpid())]
    assert not (tmp_path / ".lock").exists()


def test_a_sweep_that_is_over_asks_no_job_to_stop(tmp_path: Path) -> None:
    job = tmp_path / "0"
    (tmp_path / "sweep.json").write_text("{}")
    (tmp_path / ".stop").write_text("2")
    assert stop_file(job) is None
    (tmp_path / ".lock").write_text(f"{socket.gethostname()} {os.getppid()}")
    assert stop_file(job) == tmp_path / ".stop"


def test_of_another_machine_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("elsewhere 1")
    with pytest.raises(ConfigError, match=r"in use by another run \(elsewhere 1\)"), RunDirectory(tmp_path):
        pass


def test_a_lock_is_released_when_a_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunDirectory(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"), RunDirectory(tmp_path / "file" / "run"):
        pass


def test_status_and_manifest_tell_start_and_end(tmp_path: Path) -> None:
    assert read_status(tmp_path) == {}
    with RunDirectory(tmp_path) as run:
        for _ in range(2):
            run.write_manifest({"seed": 4}, "cpu", {})
            assert json.loads((tmp_path / "manifest.json").read_text())["end"] is None
            run.write_status("failed", "because")
    assert read_status(tmp_path)["reason"] == "because"
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["end"] is not None
    assert len(manifest["starts"]) == 2


def test_json_is_written_whole_and_without_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}})
    assert json.loads(path.read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": None}}
    before = path.read_text()

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"a": 1})
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_a_repository_around_an_installation_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """metvae may be installed in an environment inside the user's repository."""
    installed = tmp_path / "environment" / "run_directory.py"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr(run_directory, "__file__", str(installed))
    assert git_state() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message=mine"]):
        subprocess.run([*git, *words], check=True)
    assert git_state() is None
    program = tmp_path / "metvae_cli" / "build.py"
    program.parent.mkdir()
    program.write_text("")
    for words in (["add", "."], ["commit", "--quiet", "--message=theirs"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_state() == {"commit": commit, "dirty": False, "changed": []}
    program.write_text("x")
    assert git_state() == {"commit": commit, "dirty": True, "changed": ["metvae_cli/build.py"]}
    program.write_text("")
    installed.write_text("x")
    assert git_state() == {"commit": commit, "dirty": True, "changed": []}  # no file of the program
