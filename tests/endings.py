"""How runs in processes of their own come along, and whether two of them ended alike."""

import json
import time
from pathlib import Path

from metvae_cli.training.checkpoint import load_checkpoint
from tests.training.training import differences


def wait_for_epoch(folder: Path, epochs: int) -> None:
    """Until metrics.csv has so many rows."""
    path, end = folder / "metrics.csv", time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") <= epochs:
        assert time.monotonic() < end
        time.sleep(0.01)


def status(folder: Path) -> str:
    return json.loads((folder / "status.json").read_text())["status"]


def rows(folder: Path) -> list[list[str]]:
    """metrics.csv without the seconds, which stand third."""
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    return [line[:2] + line[3:] for line in lines]


def assert_same_end(folder: Path, straight: Path) -> None:
    """Weights, optimizer and numbers are those of the uninterrupted run."""
    assert status(folder) == "finished"
    for name in ("last.pt", "best.pt"):
        one, other = load_checkpoint(folder / "checkpoints" / name), load_checkpoint(straight / "checkpoints" / name)
        for part in ("model", "sampler", "optimizer", "random"):
            assert differences(one[part], other[part]) == []
    assert rows(folder) == rows(straight)


def jobs_of(sweep: Path) -> list[Path]:
    """The directories of its jobs, in order."""
    return sorted(path for path in sweep.iterdir() if path.is_dir() and not path.name.startswith("."))


def times(folder: Path) -> dict[str, int]:
    """When each file below was last written."""
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*")}
