"""The directory of a run: claimed by one process, with a manifest of what ran and a status of how it went."""

import json
import os
import platform
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from metvae_cli import __version__
from metvae_cli.errors import ConfigError
from metvae_cli.tracking.run_lock import claim, owner, owner_is_gone, release
from metvae_cli.tracking.whole_file import discard_unfinished, whole

Status = Literal["running", "finished", "pruned", "failed", "interrupted"]
DONE = ("finished", "pruned")  # that nothing has to be done about
SWEEP_RECORD = "sweep.json"
STOP_FILE = ".stop"
_GIT_SECONDS = 5
_PROGRAM = ("metvae_cli/", "configs/")
_PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "tensorboard", "numpy", "scikit-learn", "zuko")


class RunDirectory:
    """A directory that this process owns until it leaves the `with` block.

    with RunDirectory(path) as run:
        run.write_manifest(config, device="cpu")
        run.write_status("finished")

    Args:
        path: the directory
        key: what the user sets to choose it, for messages

    Raises:
        ConfigError: another living process owns it, or it cannot be written
    """

    def __init__(self, path: Path, key: str = "hydra.run.dir") -> None:
        self.path = path
        self._key = key
        self._lock = path / ".lock"

    def __enter__(self) -> "RunDirectory":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            claimed = claim(self._lock)
            if claimed:
                discard_unfinished(self.path)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"{self._key}={self.path}: cannot be written ({reason}); choose another") from None
        if not claimed:
            raise ConfigError(
                f"{self._key}={self.path}: in use by another run ({owner(self._lock)}); wait until it has ended, or "
                "choose another directory"
            )
        return self

    def __exit__(self, *error: object) -> None:
        release(self._lock)

    def holder(self) -> str:
        """Host and process id of another process that owns it, as far as this machine can tell; empty if none does."""
        return "" if owner_is_gone(self._lock) else owner(self._lock)

    def write_manifest(self, config: Mapping[str, Any], device: str, data: Mapping[str, Any]) -> None:
        """What ran, on what device and data, from which words. A resume adds its own start to the list.

        The id is the run's own: its checkpoints hold it too, so that those of another run are not taken for them. A
        run that has checkpoints already, but no manifest or an earlier version's, gets none.
        """
        from torch import get_num_threads  # here: whoever reads runs needs no torch

        path = self.path / "manifest.json"
        known = {"starts": [], "id": self._new_id()} | read_manifest(self.path)
        start = {"time": now(), "argv": sys.argv, "pid": os.getpid(), "host": socket.gethostname()}
        start["threads"] = get_num_threads()  # what a sum's last digit depends on
        manifest = {
            "id": known["id"],
            "starts": [*known["starts"], start],
            "end": None,
            "directory": known.get("directory", str(Path.cwd())),
            "device": device,
            "data": data,
            "seed": config["seed"],
            "config": config,
            "versions": {
                "metvae": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in _PACKAGES},
            },
            "platform": platform.platform(),
            "git": git_state(),
        }
        write_json(path, manifest)

    def _new_id(self) -> str:
        return "" if (self.path / "checkpoints").exists() else uuid.uuid4().hex

    def write_status(self, status: Status, reason: str = "") -> None:
        """How it stands; the end of a run also goes into the manifest."""
        write_status(self.path, status, reason)
        manifest = self.path / "manifest.json"
        if status != "running" and manifest.exists():
            write_json(manifest, json.loads(manifest.read_text()) | {"end": now()})


def write_status(path: Path, status: Status, reason: str = "") -> None:
    """How the run in a directory stands.

    Where a full disk has no room for a new file, the old one is written over: it needs none.
    """
    file, content = path / "status.json", {"status": status, "reason": reason, "time": now()}
    try:
        write_json(file, content)
    except OSError:
        with file.open("r+") as written:
            written.write(_text(content))
            written.truncate()


def read_status(path: Path) -> dict[str, str]:
    """The status of the run in a directory; empty if there is none."""
    try:
        return json.loads((path / "status.json").read_text())
    except (OSError, ValueError):
        return {}


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the run in a directory; empty if there is none that can be read."""
    try:
        found = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def run_id(path: Path) -> str:
    """The id of the run in a directory; empty of one without, as of an earlier version of metvae."""
    return str(read_manifest(path).get("id") or "")


def stop_file(folder: Path) -> Path | None:
    """The file by which the sweep that a run belongs to asks its jobs, wherever they run, to stop; None outside one."""
    sweeps = [parent for parent in folder.resolve().parents if (parent / SWEEP_RECORD).is_file()]
    # A file that lies there when the sweep is over, or is this very process, is of an earlier time.
    return sweeps[0] / STOP_FILE if sweeps and not owner_is_gone(sweeps[0] / ".lock") else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write atomically. NaN and infinities become null, which JSON can hold."""
    with whole(path) as temporary:
        temporary.write_text(_text(content))


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def git_state() -> dict[str, Any] | None:
    """Of the checkout that the code runs from: commit, whether it is dirty, changed program files. None outside one."""
    here = Path(__file__)
    try:
        # Installed inside somebody's own repository, this file is none of that repository's.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        commit = _git(here.parent, "rev-parse", "HEAD")
        changes = _git(here.parent, "--no-optional-locks", "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return None
    paths = [line[3:] for line in changes.splitlines()]
    return {"commit": commit, "dirty": bool(paths), "changed": [path for path in paths if path.startswith(_PROGRAM)]}


def _git(folder: Path, *words: str) -> str:
    """What a git command prints. Raises OSError or SubprocessError where it fails, takes long or git is not there."""
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True).stdout.rstrip()


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(_jsonable(content), indent=2) + "\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
