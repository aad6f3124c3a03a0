"""Event files cut back to a checkpoint: what goes, what stays byte for byte, and what a killed process left half."""

from pathlib import Path

import pytest
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils.tensorboard import SummaryWriter

from metvae_cli.tracking.event_files import cut_back
from tests.tracking.boards import steps_by_tag


def write(folder: Path, *steps: int) -> Path:
    """A file with the tags a and final/b at each step."""
    before = set(folder.glob("events*"))
    writer = SummaryWriter(str(folder))
    for step in steps:
        writer.add_scalar("a", step, step)
        writer.add_scalar("final/b", step, step)
    writer.close()
    (path,) = set(folder.glob("events*")) - before
    return path


def is_final(tag: str) -> bool:
    return tag.startswith("final/")


def test_what_is_later_or_written_anew_goes(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    assert cut_back(tmp_path, 2, is_final) == {"a"}
    assert steps_by_tag(tmp_path) == {"a": [1, 2]}
    assert cut_back(tmp_path, 5, is_final) == set()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_which_nothing_goes_is_not_touched(tmp_path: Path) -> None:
    path = write(tmp_path, 1, 2)
    path = path.rename(path.with_name("events.out.tfevents.1000000000.here.1.0"))
    before = path.stat()
    assert cut_back(tmp_path, 2, lambda tag: False) == {"a", "final/b"}
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_of_which_nothing_is_left_goes(tmp_path: Path) -> None:
    write(tmp_path, 5)
    assert cut_back(tmp_path, 3, is_final) == set()
    assert list(tmp_path.iterdir()) == []
    assert cut_back(tmp_path / "none", 3, is_final) == set()


def test_what_is_left_is_one_file_that_is_read_first(tmp_path: Path) -> None:
    """Of files made in one second the names say nothing of their order, nor does the clock of another machine."""
    early = tmp_path / "events.out.tfevents.9000000000.elsewhere.1.9"
    write(tmp_path, 1, 2).rename(early)
    write(tmp_path, 3).rename(early.with_name("events.out.tfevents.9000000001.elsewhere.1.10"))
    cut_back(tmp_path, 3, is_final)
    (left,) = tmp_path.iterdir()
    new = write(tmp_path, 4)
    assert left.name < new.name
    assert steps_by_tag(tmp_path)["a"] == [1, 2, 3, 4]


def test_what_stands_there_twice_is_left_once(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    write(tmp_path, 2, 3)
    assert cut_back(tmp_path, 3, is_final) == {"a"}
    assert steps_by_tag(tmp_path) == {"a": [1, 2, 3]}


@pytest.mark.parametrize("lost", [1, 5, 20, 40])
def test_a_record_that_is_not_whole_goes(tmp_path: Path, lost: int) -> None:
    path = write(tmp_path, 1, 2)
    path.write_bytes(path.read_bytes()[:-lost])
    cut_back(tmp_path, 9, lambda tag: False)
    assert steps_by_tag(tmp_path)["a"] == [1, 2]
    (left,) = tmp_path.iterdir()
    whole = left.read_bytes()
    assert cut_back(tmp_path, 9, lambda tag: False) == set()
    assert [left, whole] == [*tmp_path.iterdir(), left.read_bytes()]


def test_of_an_event_with_several_values_some_may_stay(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path))
    values = [Summary.Value(tag=tag, simple_value=1.0) for tag in ("a", "final/b", "c")]
    writer._get_file_writer().add_summary(Summary(value=values), 4)
    writer.close()
    assert cut_back(tmp_path, 4, is_final) == {"a", "c"}
    assert steps_by_tag(tmp_path) == {"a": [4], "c": [4]}


def test_files_of_one_second_follow_each_other_as_they_were_made(tmp_path: Path) -> None:
    """Their names end in numbers, of which the tenth is read before the ninth."""
    for step, number in ((1, 9), (2, 10)):
        write(tmp_path, step).rename(tmp_path / f"events.out.tfevents.1000000000.here.1.{number}")
    cut_back(tmp_path, 5, lambda tag: False)
    assert steps_by_tag(tmp_path)["a"] == [1, 2]
