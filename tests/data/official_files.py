"""Small files in exactly the formats in which the data sets are published, and what a damaged one must say."""

import gzip
import hashlib
import io
import struct
import tarfile
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from metvae_cli.data import download
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


def serve(
    monkeypatch: pytest.MonkeyPatch, files: Mapping[str, bytes], down: str | None = None, cut: str | None = None
) -> list[str]:
    """Let downloads find `files` by the last part of the address; returns the addresses that will be asked for.

    down: part of addresses that do not answer. cut: name of a file of which half arrives before the connection breaks.
    """
    asked: list[str] = []

    def receive(url: str, part: Path) -> None:
        asked.append(url)
        name = url.rpartition("/")[2]
        if down is not None and down in url:
            raise URLError("this address is down")
        if name == cut:
            part.write_bytes(files[name][: len(files[name]) // 2])
            raise URLError("connection reset")
        part.write_bytes(files[name])

    monkeypatch.setattr(download, "receive", receive)
    return asked


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


def _short_string(text: bytes) -> bytes:
    """SHORT_BINSTRING: how Python 2 pickled a `str`."""
    return b"U" + bytes([len(text)]) + text


def _number(value: int) -> bytes:
    """BININT1 or BININT2."""
    return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)


def cifar_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 pickled it: protocol 2, byte strings, an array (N, 3072) uint8 of numpy before 2."""
    raw = pixels.tobytes()
    shape = b"".join(_number(size) for size in pixels.shape) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + _short_string(b"u1") + b"K\x00K\x01\x87R(K\x03" + _short_string(b"|")
    dtype += b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _short_string(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    numbers = b"](" + b"".join(_number(label) for label in labels) + b"e"
    names = b"](" + b"".join(_short_string(b"image_%06d.png" % i) for i in range(len(labels))) + b"e"
    entries = {b"batch_label": _short_string(b"training batch 1 of 5"), b"labels": numbers, b"data": array}
    entries[b"filenames"] = names
    return b"\x80\x02}(" + b"".join(_short_string(key) + value for key, value in entries.items()) + b"u."


def tar_gz(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def mat(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A MATLAB 5 file, compressed as MATLAB does."""
    buffer = io.BytesIO()
    savemat(buffer, dict(arrays), do_compression=True)
    return buffer.getvalue()


def picture(pixels: np.ndarray, kind: str, mode: str = "RGB") -> bytes:
    """A PNG or JPEG file of the pixels (H, W) or (H, W, 3) uint8."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def amat(pixels: np.ndarray) -> bytes:
    """Lines of 784 digits with spaces between them."""
    return b"".join(b" ".join(b"%d" % value for value in row) + b"\n" for row in pixels.reshape(len(pixels), -1))
