"""Arrays from .npy, .npz and .pt files that may be anything: nothing in them is run, nothing in them is believed."""

import math
import os
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

# A single array has this name.
ONLY = ""
SUFFIXES = (".npy", ".npz", ".pt")
# torch takes these names, too, and calls them with what stands behind.
_MAKERS = ("builtins bytearray", "__builtin__ bytearray", "torch Tensor")
_TYPES = "bool, integers or real floating-point numbers"


class ArrayFileError(Exception):
    """What is wrong with a file, and the remedy, in one line."""


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Named arrays of a file; a single one that has no name is called "".

    Returns:
        Tensors of type uint8 (of bool, too), int64, float32 or float64

    Raises:
        ArrayFileError: not a file, damaged, or it holds something that is no array of numbers
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ArrayFileError(f"has the suffix {path.suffix or 'none'}; save the data as {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ArrayFileError(("is no file" if path.exists() else "no such file") + "; name a file that is there")
    try:
        return {".npy": _read_npy, ".npz": _read_npz, ".pt": _read_pt}[path.suffix.lower()](path)
    except ArrayFileError:
        raise
    except MemoryError:
        raise ArrayFileError("does not fit into memory; save fewer data, or smaller ones") from None
    # Damaged bytes end in whatever exception the parsers of numpy, zipfile and torch stumble into.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise ArrayFileError(f"cannot be read as {path.suffix.lower()} ({reason}); save it again") from error


def _read_npy(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        _require_promise_kept(file, path.stat().st_size, "the array")
    return {ONLY: _tensor(np.load(path, allow_pickle=False), "the array")}


def _read_npz(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        _require_memory(sum(member.file_size for member in archive.infolist()))
        for member in archive.infolist():
            with archive.open(member) as file:
                _require_promise_kept(file, member.file_size, member.filename.removesuffix(".npy"))
    with np.load(path, allow_pickle=False) as arrays:
        return {name: _tensor(arrays[name], name) for name in arrays.files}


def _require_promise_kept(file: IO[bytes], size: int, name: str) -> None:
    """Read the header of an array and compare it with the number of bytes that follow."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ArrayFileError(f"{name} is a table with named fields; save {_TYPES}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if kind.hasobject:
        raise ArrayFileError(
            f"{name} holds Python objects (ragged rows?), which are never unpickled; save one regular array of {_TYPES}"
        )
    promised, there = math.prod(shape) * kind.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or promised > there:
        raise ArrayFileError(f"{name} says {shape} {kind}, {promised} bytes, and holds {there}; save it again")
    _require_memory(promised)


def _read_pt(path: Path) -> dict[str, Tensor]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _require_memory(sum(member.file_size for member in archive.infolist()))
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    _refuse_makers(archive.read(name))
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ArrayFileError(
            "cannot be read as .pt: damaged, or of other objects than tensors; save a tensor, or a dictionary of them"
        ) from None
    named = content if isinstance(content, Mapping) else {ONLY: content}
    found: dict[str, Tensor] = {}
    for key, value in named.items():
        name = str(key) or "the array"
        if not isinstance(value, Tensor):
            raise ArrayFileError(f"{name} is a {type(value).__name__}; save a tensor, or a dictionary of tensors")
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise ArrayFileError(f"{name} is a {value.layout} {value.dtype} tensor; save a dense tensor of {_TYPES}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ArrayFileError(
                f"{name} says {tuple(value.shape)}, more than its file holds; save tensor.clone(), not an expanded view"
            )
        value = value.detach().resolve_neg()
        found[str(key)] = _tensor((value.float() if value.dtype == torch.bfloat16 else value).numpy(), name)
    return found


def _refuse_makers(content: bytes) -> None:
    """Raise ArrayFileError where a pickle would make, of a number in it, something as large as that."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "STACK_GLOBAL" or argument in _MAKERS:
            raise ArrayFileError("asks for more than tensors; save a tensor, or a dictionary of them")


def _tensor(array: np.ndarray, name: str) -> Tensor:
    """A tensor that owns its memory. Raises ArrayFileError where the array holds anything but numbers."""
    if array.dtype.kind not in "buif":
        raise ArrayFileError(f"{name} has the type {array.dtype}; save {_TYPES}")
    if 0 in array.shape or array.ndim == 0:
        raise ArrayFileError(f"{name} is empty: its shape is {array.shape}; save data along the first dimension")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.max() > np.iinfo(np.int64).max:
        raise ArrayFileError(f"{name} holds {array.max()}; integers must stay below 2**63")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ArrayFileError(f"{name} holds {array[first]} at {list(first)}; replace or remove what is not finite")
    if array.dtype.kind == "b" or array.dtype == np.uint8:
        return torch.from_numpy(array.astype(np.uint8))
    if array.dtype.kind in "ui":
        return torch.from_numpy(array.astype(np.int64))
    return torch.from_numpy(array.astype(np.float64 if array.dtype.itemsize >= 8 else np.float32))


def _require_memory(size: int) -> None:
    """Raise ArrayFileError where so many bytes are more than the machine has: what is compressed may be anything."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return
    if size > memory:
        raise ArrayFileError(f"holds {size} bytes of data, and this machine's memory {memory}; save fewer data")
