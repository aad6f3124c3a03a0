"""Small files in exactly the formats in which the data sets are published, and what a damaged one must say."""

import gzip
import hashlib
import io
import struct
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.error import URLError

import numpy as np
import pytest

from metvae_cli.data.base import Dataset
from metvae_cli.errors import ConfigError


class RootedSource(Protocol):
    """A data set that reads files below `root`."""

    root: str

    def load(self) -> Dataset: ...


def load_error(source: RootedSource) -> str:
    """The message of the ConfigError that loading raises: always one line naming the key and its value."""
    with pytest.raises(ConfigError) as caught:
        source.load()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"dataset.root={source.root}: ")
    return message


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection fail as it does on a machine without a network."""

    def refuse(*arguments: object, **options: object) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def flipped(content: bytes) -> bytes:
    """One bit of the byte in the middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def idx_images(images: np.ndarray) -> bytes:
    """A file of images (N, 28, 28) uint8."""
    return struct.pack(">IIII", 2051, *images.shape) + images.tobytes()


def idx_labels(labels: list[int]) -> bytes:
    return struct.pack(">II", 2049, len(labels)) + bytes(labels)


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip archive of the members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
