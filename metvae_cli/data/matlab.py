"""Reading MATLAB files: only the named arrays, and only if the shapes that the file declares are the expected ones."""

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metvae_cli.data.official import Root

NUMBERS = ("uint8", "int8", "uint16", "double", "single", "logical")
HEADER = 128
COMPRESSED = 15
MAX_UNPACKED = 1 << 31
PIECE = 1 << 22
Shape = tuple[int, ...]


def declared(root: Root, path: Path) -> dict[str, tuple[Shape, str]]:
    """Shape and class of each array that the file says it holds, before any is read. Raises ConfigError."""
    from scipy.io import whosmat  # here: slow to import, and few data sets need it

    _check_elements(root, path)
    try:
        return {name: (tuple(map(int, shape)), kind) for name, shape, kind in whosmat(str(path))}
    except Exception as error:  # scipy raises whatever the damaged bytes lead it to
        raise root.unreadable(path, error) from error


def read_mat(root: Root, path: Path, expected: Mapping[str, Sequence[Shape]]) -> dict[str, np.ndarray]:
    """The named arrays of a MATLAB file.

    expected: for each name the shapes that it may have

    Raises ConfigError: an array missing, of another shape or no numbers, or a file that cannot be read.
    """
    from scipy.io import loadmat

    found = declared(root, path)
    for name, shapes in expected.items():
        if name not in found:
            raise root.damaged(path, f"an array {name!r}", ", ".join(found) or "none")
        shape, kind = found[name]
        if shape not in shapes or kind not in NUMBERS:
            choices = " or ".join(_shown(choice) for choice in shapes)
            raise root.damaged(path, f"{name!r} of {choices} numbers", f"{_shown(shape)} {kind}")
    try:
        arrays = loadmat(str(path), variable_names=list(expected))
        result = {name: np.asarray(arrays[name]) for name in expected}
    except Exception as error:  # as above
        raise root.unreadable(path, error) from error
    for name, array in result.items():
        if array.shape != found[name][0] or array.dtype.kind not in "uifb":
            raise root.damaged(path, f"{name!r} of {_shown(found[name][0])} numbers", f"{_shown(array.shape)}")
    return result


def _check_elements(root: Root, path: Path) -> None:
    """Raise ConfigError unless the file is a whole MATLAB 5 file: scipy reads neither past what it needs nor checksums.

    The checksum of each compressed element is verified, and that together they unpack to a bounded size.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(HEADER)
            order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(header[124:])
            if order is None:
                raise root.damaged(path, "a MATLAB 5 file", "another format")
            room = MAX_UNPACKED
            while tag := file.read(8):
                kind, length = struct.unpack(f"{order}II", tag.ljust(8, b"\0"))
                end = file.tell() + length
                if len(tag) < 8 or end > size:
                    raise root.damaged(path, f"at least {max(end, size + 8 - len(tag))} bytes", f"{size}")
                if kind == COMPRESSED:
                    room -= _unpacked_size(file.read(length), room)
                file.seek(end)
    except (OSError, ValueError, zlib.error) as error:
        raise root.unreadable(path, error) from error


def _unpacked_size(element: bytes, room: int) -> int:
    """Bytes that a compressed element unpacks to. Raises zlib.error or, for more than `room`, ValueError."""
    unpacker, rest, size = zlib.decompressobj(), element, 0
    while not unpacker.eof:
        piece = unpacker.decompress(rest, PIECE)
        rest = unpacker.unconsumed_tail
        size += len(piece)
        if size > room:
            raise ValueError(f"it unpacks to more than {MAX_UNPACKED} bytes")
        if not piece and not rest:
            raise ValueError("a compressed array ends too early")
    return size


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))
