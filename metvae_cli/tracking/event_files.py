"""The event files of a run that goes on: cut back to where its checkpoint stands, as metrics.csv is.

TensorBoard's readers differ in how they treat what a resume makes obsolete: one drops events by the purge mark of the
new file, another by steps that come again, and a reader of the bare files drops nothing. Where it is gone all agree.

A file is a row of records: length (8 bytes), checksum of it (4), an event as a protocol buffer, checksum of it (4).
"""

import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter


def cut_back(folder: Path, step: int, is_written_anew: Callable[[str], bool]) -> set[str]:
    """Drop from the files in a directory what came after an iteration, and what is not whole.

    Args:
        folder: directory of the run; nobody else writes there
        step: iteration of the checkpoint
        is_written_anew: whether a tag is dropped at every step

    Returns:
        the tags that have an event at that very iteration
    """
    last: set[str] = set()
    for path in sorted(folder.glob("events.out.tfevents.*")):
        before, after = path.read_bytes(), io.BytesIO()
        writer = RecordWriter(after)
        worth_keeping = False
        for record in _records(before):
            event = Event.FromString(record[12:-4])
            values = [value for value in event.summary.value if event.step <= step and not is_written_anew(value.tag)]
            if event.step == step:
                last |= {value.tag for value in values}
            worth_keeping = worth_keeping or bool(values)
            if event.HasField("file_version") or (values and len(values) == len(event.summary.value)):
                after.write(record)
            elif values:
                del event.summary.value[:]
                event.summary.value.extend(values)
                writer.write(event.SerializeToString())
        if not worth_keeping:
            path.unlink()
        elif after.getvalue() != before:
            _replace(path, after.getvalue())
    return last


def _records(content: bytes) -> Iterator[bytes]:
    """The whole records of a file; the last one of a process that was killed may not be."""
    place = 0
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        end = place + length + 16
        if end > len(content):
            return
        yield content[place:end]
        place = end


def _replace(path: Path, content: bytes) -> None:
    """Write atomically, under a name in between that TensorBoard does not take for events."""
    temporary = path.with_name(f".cut.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
