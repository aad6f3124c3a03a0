"""Reading published pickles without trusting them: plain containers and byte arrays, and nothing is ever called.

A pickle names functions to call. Here the few names that a pickled numpy array needs stand for empty shells that only
keep what they are given; every other name is refused. Not even numpy's own reconstruction runs on the file's data.
"""

import io
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metvae_cli.data.official import Root

# What a damaged or a hostile stream of pickle instructions can make the unpickler raise.
PICKLE_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    MemoryError,
    RecursionError,
    NotImplementedError,
)


class _ArrayShell:
    """Stands for numpy.ndarray: (version, shape, dtype, is_fortran, bytes) as the pickle gives them."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _DtypeShell:
    """Stands for numpy.dtype: the name of the type."""

    def __init__(self, name: object = None, *_flags: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and fields: of no meaning for single bytes."""


def _empty_array(*_arguments: object) -> _ArrayShell:
    return _ArrayShell()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in old protocols. Other encodings are refused."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): _ArrayShell,
    ("numpy", "dtype"): _DtypeShell,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        found = _ALLOWED.get((module_name, global_name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which is refused")
        return found


@dataclass(frozen=True)
class PickledBytes:
    """A pickle's dictionary, to be asked for what it is expected to hold.

    path: for messages
    """

    root: Root
    path: Path | str
    content: dict[str, object]

    def bytes_array(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array of single bytes of exactly this shape. Raises ConfigError."""
        shell = self.content.get(key)
        state = shell.state if isinstance(shell, _ArrayShell) else None
        if not isinstance(state, tuple) or len(state) != 5:
            raise self.root.damaged(self.path, f"an array {key!r}", f"{type(shell).__name__}")
        _, found, dtype, fortran, raw = state
        if not isinstance(dtype, _DtypeShell) or dtype.name != "u1":
            raise self.root.damaged(self.path, f"{key!r} in bytes", "another type")
        data = _raw_bytes(raw)
        if found != shape or len(data) != int(np.prod(shape)):
            raise self.root.damaged(self.path, f"{key!r} of shape {shape}", f"{found} in {len(data)} bytes")
        return np.frombuffer(data, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")

    def integers(self, key: str, count: int, below: int) -> list[int]:
        """A list of `count` integers from 0 to below `below`. Raises ConfigError."""
        found = self.content.get(key)
        if not isinstance(found, list) or len(found) != count:
            size = f"{len(found)}" if isinstance(found, list) else type(found).__name__
            raise self.root.damaged(self.path, f"{count} {key}", size)
        if not all(type(entry) is int and 0 <= entry < below for entry in found):
            raise self.root.damaged(self.path, f"{key} from 0 to {below - 1}", "another")
        return found


def unpickle(root: Root, path: Path | str, content: bytes) -> PickledBytes:
    """The dictionary of a pickle, as Python 2 or 3 wrote it. Raises ConfigError; runs nothing that it names."""
    try:
        _refuse_large_memo(content)
        found = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except PICKLE_ERRORS as error:
        raise root.unreadable(path, error) from error
    if type(found) is not dict:
        raise root.damaged(path, "a dictionary", type(found).__name__)
    return PickledBytes(root, path, found)


def _refuse_large_memo(content: bytes) -> None:
    """Raise UnpicklingError where a few bytes would make the unpickler reserve gigabytes."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise pickle.UnpicklingError(f"it asks for a memo of {argument} entries")


def _raw_bytes(raw: object) -> bytes:
    """The bytes of an array: Python 2's strings arrive as text in which each character is a byte."""
    if isinstance(raw, str):
        return raw.encode("latin1", errors="replace")
    return raw if isinstance(raw, bytes) else b""
