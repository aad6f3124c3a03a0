"""What the bytes of a checkpoint may say: the few names that tensors need, sizes that the file really holds, types.

A hash tells that a file is what its writer wrote, and not who that was. Before torch reads the pickle inside, it is
read with shells in place of all that it may name: every other name is refused, and so are storages and tensors that
claim more than the file holds, which torch would make room for or read past. What torch then gives is held against the
types of what a run saves.
"""

import io
import math
import pickle
import pickletools
import zipfile
from dataclasses import fields
from typing import Any, NamedTuple, NoReturn, get_origin

import torch

from metvae_cli.training.state import State

_ITEM_SIZES = {
    "BoolStorage": 1,
    "ByteStorage": 1,
    "CharStorage": 1,
    "ShortStorage": 2,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "IntStorage": 4,
    "FloatStorage": 4,
    "LongStorage": 8,
    "DoubleStorage": 8,
}
_MAPPINGS = ("model", "sampler", "optimizer", "scheduler", "state", "random")
_PARTS = (*_MAPPINGS, "adaptations")
_WEIGHTS = ("model", "sampler")


class ContentError(Exception):
    """Why a checkpoint is refused, in one line."""


def read_content(payload: bytes) -> Any:
    """What a file written by `torch.save` holds, tensors on the CPU. Raises ContentError; nothing in it is run."""
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            _check_archive(archive, len(payload))
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except ContentError:
        raise
    except Exception as error:  # whatever a file made by somebody else provokes
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ContentError(f"it holds more than tensors and plain values ({reason})") from None
    if isinstance(content, dict):
        _check_types(content)
    return content


class _Storage(NamedTuple):
    """Stands for a storage: elements that the file holds."""

    elements: int


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ContentError unless the archive holds what it says and its pickle names nothing but tensors."""
    members = {member.filename: member for member in archive.infolist()}
    if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
        raise ContentError("it is compressed, which no checkpoint is")
    if len(members) < len(archive.infolist()) or sum(member.file_size for member in members.values()) > size:
        raise ContentError("its parts are larger than the file, or have the same name")
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ContentError(f"it holds {len(pickles)} pickles in place of one")
    content = archive.read(pickles[0])
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise ContentError(f"it asks for room for {argument} entries")
    folder = pickles[0].rpartition("/")[0]
    _Shells(content, {name.removeprefix(f"{folder}/data/"): entry.file_size for name, entry in members.items()}).load()


class _Shells(pickle.Unpickler):
    """Reads a pickle and makes nothing of it but plain containers and `_Storage`.

    sizes: bytes of each storage in the file, by its key
    """

    def __init__(self, content: bytes, sizes: dict[str, int]) -> None:
        super().__init__(io.BytesIO(content))
        self._sizes = sizes

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == "torch" and global_name in _ITEM_SIZES:
            return global_name
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _check_tensor
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return _no_entries
        raise ContentError(f"it asks for {module_name}.{global_name}, and may hold tensors and plain values only")

    def persistent_load(self, pid: Any, /) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), str(), int(elements)) if kind in _ITEM_SIZES:
                there = self._sizes.get(key, -1)
                if elements < 0 or elements * _ITEM_SIZES[kind] > there:
                    raise ContentError(f"it says {elements} elements where the file has {max(there, 0)} bytes")
                return _Storage(elements)
        raise ContentError("it asks for something outside of the file")


def _check_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_others: Any) -> None:
    """Raise ContentError for a tensor that is larger than its storage, by size or by repetition."""
    numbers = [offset, *shape, *stride]
    if not isinstance(storage, _Storage) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ContentError("it holds a tensor that is none")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if math.prod(shape) > storage.elements or (math.prod(shape) and last >= storage.elements):
        raise ContentError(f"it says a tensor of shape {tuple(shape)} where the file has {storage.elements} elements")


def _no_entries() -> dict[Any, Any]:
    return {}


def _check_types(content: dict[Any, Any]) -> None:
    """Raise ContentError for a part of a run's checkpoint that is missing or of another type."""
    missing = [part for part in _PARTS if part not in content]
    if missing and "optimizer" in content:  # what has one is a run's, and has them all
        raise ContentError(f"it has no {missing[0]}")
    for part in _MAPPINGS:
        found = content.get(part, {})
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            _refuse(part, "a mapping", found)
    for part in _WEIGHTS:
        for name, value in content.get(part, {}).items():
            if not isinstance(value, torch.Tensor):
                _refuse(f"{part}.{name}", "a tensor", value)
    adaptations = content.get("adaptations", [])
    if not isinstance(adaptations, list) or not all(isinstance(entry, dict) for entry in adaptations):
        _refuse("adaptations", "a list of mappings", adaptations)
    known = {field.name: field.type for field in fields(State)}
    for name, value in content.get("state", {}).items():
        if name in known and not _fits(value, known[name]):
            _refuse(f"state.{name}", str(getattr(known[name], "__name__", known[name])), value)


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(number, float) for number in value.values())
    allowed = (int, float) if kind is float else kind
    return isinstance(value, allowed) and not isinstance(value, bool)


def _refuse(place: str, expected: str, found: Any) -> NoReturn:
    raise ContentError(f"{place} is a {type(found).__name__} and not {expected}")
