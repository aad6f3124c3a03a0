"""What a run must have left in the end, however often it was killed: what one that nobody touched leaves."""

from pathlib import Path

from tests.endings import assert_same_end
from tests.tracking.boards import numbers, projector_of, steps_by_tag


def assert_same_run(folder: Path, straight: Path) -> None:
    """Weights, optimizer, random streams, rows, every event of TensorBoard; nothing half-written is left."""
    assert_same_end(folder, straight)
    assert_monotone(folder)
    assert steps_by_tag(folder) == steps_by_tag(straight)
    assert numbers(folder) == numbers(straight)
    assert len(projector_of(folder).embeddings) == 1
    assert unfinished(folder) == []
    assert not (folder / ".lock").exists()


def assert_monotone(folder: Path) -> None:
    """Its events can be read, and no tag has an event twice or one out of order."""
    wrong = {tag: steps for tag, steps in steps_by_tag(folder).items() if steps != sorted(set(steps))}
    assert wrong == {}


def unfinished(folder: Path) -> list[str]:
    """Files that a process had not finished writing."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.tmp")]
