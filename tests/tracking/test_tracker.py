"""The progress bar of training: every iteration is counted, few of them are drawn."""

import io
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from metvae_cli.tracking import tracker as tracker_module
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.tensorboard import Board
from metvae_cli.tracking.tracker import RunTracker

ITERATIONS = 2000
SECONDS = 0.002  # of each


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How far the bar was, each time that it moved; a clock that goes on by one iteration at each look."""
    seen: list[float] = []
    ticks = iter(range(10 * ITERATIONS))
    clock = SimpleNamespace(monotonic=lambda: SECONDS * next(ticks))
    monkeypatch.setattr(tracker_module, "time", clock)
    update = Progress.update

    def noted(self: Progress, *args: Any, **fields: Any) -> None:
        seen.append(fields["completed"])
        update(self, *args, **fields)

    monkeypatch.setattr(Progress, "update", noted)
    return seen


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_bar_moves_a_few_times_per_second(
    is_terminal: bool, moves: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=is_terminal)
    monkeypatch.setattr(tracker_module, "console", lambda: screen)
    iterations = []
    with (
        closing(Board(tmp_path)) as board,
        RunTracker(board, MetricsFile(tmp_path / "metrics.csv"), dict, 2, lambda: iterations.append(1)) as tracker,
    ):
        for done in range(ITERATIONS):
            tracker.progress(1, done + 1, ITERATIONS)
    assert len(iterations) == ITERATIONS
    if not is_terminal:
        assert moves == []
        return
    assert moves[0] == ITERATIONS + 1, "the first iteration shows that something happens"
    assert moves == sorted(moves)
    assert 0.5 < len(moves) / (ITERATIONS * SECONDS) / 4 <= 1.1
