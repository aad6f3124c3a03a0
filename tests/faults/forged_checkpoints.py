"""Payloads of checkpoints as somebody else might write them, under the right hash."""

import hashlib
import io
import zipfile
from typing import Any

import torch


class Gadget:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def seal(payload: bytes) -> bytes:
    """With the footer that a checkpoint has: only what reads the content stands in between."""
    return payload + b"\nsha256:" + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def saved(content: Any, **words: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **words)
    return buffer.getvalue()


def archived(content: bytes, original: bytes, compression: int = zipfile.ZIP_STORED, **others: bytes) -> bytes:
    """What `torch.save` wrote with another pickle, or other storages by their key, in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(original)) as source, zipfile.ZipFile(buffer, "w", compression) as target:
        for name in source.namelist():
            key = name.rpartition("/data/")[2]
            target.writestr(name, content if name.endswith("data.pkl") else others.get(key, source.read(name)))
    return buffer.getvalue()
