"""Open files and memory of one process stay as they are, however long it trains, sweeps or evaluates."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from metvae_cli.commands import train_run
from metvae_cli.tracking.tracker import RunTracker
from metvae_cli.training.interruption import Interruption
from tests.runs import files, metvae, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not tell what a process holds"),
]

MEGABYTE = 2**20
LARGEST_GROWTH = 8 * MEGABYTE  # of what the allocator keeps, from one half of the looks to the other
EACH = 100  # iterations between two looks


class Held(NamedTuple):
    """What the process holds. memory: resident, bytes."""

    files: int
    memory: int


def held() -> Held:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGE_SIZE"))


def growth(looks: list[Held]) -> Held:
    """By how much the second half of the looks holds more than the first, without the first quarter, the warming up.

    Of memory the least of each half counts: pictures come and go, and what is kept for good lifts the floor.
    """
    later = looks[len(looks) // 4 :]
    early, late = later[: len(later) // 2], later[len(later) // 2 :]
    return Held(
        max(look.files for look in late) - max(look.files for look in early),
        min(look.memory for look in late) - min(look.memory for look in early),
    )


def is_flat(looks: list[Held]) -> bool:
    assert len(looks) >= 16
    found = growth(looks)
    return found.files <= 0 and found.memory < LARGEST_GROWTH


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def look_after(
    patch: pytest.MonkeyPatch, owner: Any, name: str, each: int, leak: Callable[[], object] = lambda: None
) -> list[Held]:
    """What is held at every so many calls of a function. leak: called at each of its calls."""
    real, looks, calls = getattr(owner, name), list[Held](), iter(range(1, 1_000_000))

    def called(*arguments: Any, **named: Any) -> Any:
        leak()
        if next(calls) % each == 0:
            looks.append(held())
        return real(*arguments, **named)

    patch.setattr(owner, name, called)
    return looks


def trained(patch: pytest.MonkeyPatch, iterations: int, each: int, leak: Callable[[], object]) -> list[Held]:
    """Looks at a run that logs each iteration, and validates, draws and saves every hundred."""
    words = ("dataset.batch_size=13", "trainer.max_epochs=1000", f"trainer.max_iterations={iterations}")
    often = ("trainer.log_every=1", "trainer.picture_every=1", "trainer.checkpoint_seconds=0.1")
    looks = look_after(patch, RunTracker, "progress", each, leak)
    assert train(*words, *often, "hydra.run.dir=run") == 0
    return looks


def test_two_thousand_iterations_leave_no_file_open_and_no_memory_behind(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = held()
    looks = trained(monkeypatch, 2000, EACH, lambda: None)
    assert len(looks) == 20
    assert is_flat(looks), [(look.files, look.memory // MEGABYTE) for look in looks]
    assert held().files <= before.files
    assert not [name for name in files(here) if name.endswith((".tmp", ".lock"))]


@pytest.fixture
def opened(here: Path) -> Iterator[list[Any]]:
    kept: list[Any] = []
    yield kept
    for file in kept:
        file.close()


def test_the_judge_sees_a_file_left_open_per_iteration(
    opened: list[Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = trained(monkeypatch, 200, 10, lambda: opened.append(Path("leak").open("w")))  # noqa: SIM115
    assert growth(looks).files > 50
    assert not is_flat(looks)


def test_the_judge_sees_a_tensor_kept_per_iteration(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[torch.Tensor] = []
    looks = trained(monkeypatch, 200, 10, lambda: kept.append(torch.ones(MEGABYTE // 16)))  # a quarter of a megabyte
    assert growth(looks).memory > 1.5 * LARGEST_GROWTH
    assert not is_flat(looks)


def test_thirty_jobs_of_a_sweep_leave_no_file_open_and_no_memory_behind(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = held()
    looks = look_after(monkeypatch, train_run, "print_summary", 1)
    words = ("trainer.max_iterations=3", "trainer.test_data=2", "hydra.sweep.dir=sweep")
    assert train("-m", "seed=range(30)", *words) == 0
    assert len(looks) == 30
    assert is_flat(looks), [(look.files, look.memory // MEGABYTE) for look in looks]
    assert held().files <= before.files


def test_two_hundred_chunks_of_an_evaluation_leave_no_memory_behind(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("hydra.run.dir=run", "trainer.max_epochs=1") == 0
    before = held()
    looks = look_after(monkeypatch, Interruption, "check", 10)
    words = ("estimators=[importance]", "diagnostics=[]", "importance.num_samples=20000", "importance.chunk=1000")
    assert metvae("evaluate", "run=run", *words, "importance.repeats=1", "data=10", "hydra.run.dir=measured") == 0
    assert len(looks) >= 20
    assert is_flat(looks), [(look.files, look.memory // MEGABYTE) for look in looks]
    assert held().files <= before.files
