"""The event files of a run that goes on: cut back to where its checkpoint stands, as metrics.csv is.

TensorBoard's readers differ in how they treat what a resume makes obsolete: one drops events by the purge mark of the
new file, another by steps that come again, and a reader of the bare files drops nothing. Where it is gone all agree.

A file is a row of records: length (8 bytes), checksum of it (4), an event as a protocol buffer, checksum of it (4).
Readers take the files of a directory in the order of their names, which begin with the second they were made in.
"""

import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from metvae_cli.errors import RunError, naming

PREFIX = "events.out.tfevents."
_LARGEST = 2**32  # bytes; they are read at once


def cut_back(folder: Path, step: int, is_written_anew: Callable[[str], bool]) -> set[str]:
    """Drop from the files in a directory what came after an iteration, what is not whole, and what stands there twice.

    What is left is one file, or none, that is read before any that is made from now on.

    Args:
        folder: directory of the run; nobody else writes there
        step: iteration of the checkpoint
        is_written_anew: whether a tag is dropped at every step

    Returns:
        the tags that have an event at that very iteration

    Raises:
        RunError: something else has such a name, which may never end, or a file is too large to be read
    """
    paths = list(folder.glob(f"{PREFIX}*"))
    for path in paths:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise RunError(f"{path}: is no file of at most {_LARGEST} bytes, as events are; remove it, then resume")
    paths.sort(key=_began)
    if not paths:
        return set()
    content = [path.read_bytes() for path in paths]
    found: set[tuple[str, int]] = set()
    kept = b"".join(_kept([record for part in content for record in _records(part)], step, is_written_anew, found))
    left = _read_before_now(paths[0])
    if found and (paths, content) != ([left], [kept]):
        _replace(left, kept)
    for path in paths:
        if path != left or not found:
            path.unlink()
    return {tag for tag, at in found if at == step}


def _kept(
    records: list[bytes], step: int, is_written_anew: Callable[[str], bool], found: set[tuple[str, int]]
) -> Iterator[bytes]:
    """The records that stay. found: gets the tags and steps that are in them."""
    has_version = False
    for record in records:
        try:
            event = Event.FromString(record[12:-4])
        except DecodeError:
            continue  # its checksums are right, but it is no event: somebody else wrote it
        if event.HasField("file_version") and not has_version:
            has_version = True
            yield record
        values = []
        for value in event.summary.value:
            if event.step <= step and not is_written_anew(value.tag) and (value.tag, event.step) not in found:
                found.add((value.tag, event.step))
                values.append(value)
        if values and len(values) == len(event.summary.value):
            yield record
        elif values:
            del event.summary.value[:]
            event.summary.value.extend(values)
            yield record_of(event.SerializeToString())


def _records(content: bytes) -> Iterator[bytes]:
    """The whole records of a file; the last one of a process that was killed may not be."""
    place = 0
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        end = place + length + 16
        if end > len(content):
            return
        (checksum,) = struct.unpack_from("<I", content, end - 4)
        if checksum != masked_crc32c(content[place + 12 : end - 4]):
            return  # TensorBoard reads no further either
        yield content[place:end]
        place = end


def record_of(event: bytes) -> bytes:
    """An event as it stands in a file."""
    length = struct.pack("<Q", len(event))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, event)]
    return length + sums[0] + event + sums[1]


def _began(path: Path) -> tuple[str, int]:
    """What sorts files by when they were begun. Of one second the names do not tell: number 10 stands before 9."""
    return path.name.removeprefix(PREFIX).partition(".")[0], path.stat().st_mtime_ns


def _read_before_now(path: Path) -> Path:
    """The file's path, or another where its name says that it is made in this second or, by another clock, later."""
    stamp, _, rest = path.name.removeprefix(PREFIX).partition(".")
    now = int(time.time())
    late = stamp.isdigit() and int(stamp) >= now
    return path.with_name(f"{PREFIX}{now - 1:010d}.{rest}") if late else path


def _replace(path: Path, content: bytes) -> None:
    """Write atomically, under a name in between that TensorBoard does not take for events."""
    temporary = path.with_name(f".cut.{os.getpid()}.tmp")
    try:
        with naming(temporary):
            temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
