"""The file format of MNIST and its relatives: 28x28 images and their labels, big-endian headers, checked strictly."""

import struct
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metvae_cli.data.official import Root

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
SIDE = 28
PIXELS = SIDE * SIDE
IMAGES_HEADER, LABELS_HEADER = 16, 8


def images_limit(counts: Sequence[int]) -> int:
    """Bytes of the largest file of images that may be."""
    return IMAGES_HEADER + PIXELS * max(counts)


def labels_limit(counts: Sequence[int]) -> int:
    """Bytes of the largest file of labels that may be."""
    return LABELS_HEADER + max(counts)


def read_file(root: Root, folder: Path, name: str, md5: str | None, limit: int) -> bytes:
    """The idx file, from its .gz archive where that is there (verified where `md5` is known), else as it is.

    Raises ConfigError.
    """
    archive = folder / f"{name}.gz"
    if not archive.is_file():
        return root.read(folder / name, limit)
    if md5 is not None:
        root.verify(archive, "md5", md5)
    return root.gunzip(archive, archive, limit)


def images_from(root: Root, path: Path | str, content: bytes, counts: Sequence[int] = ()) -> Tensor:
    """Grey levels (N, 1, 28, 28) uint8 of a file of images.

    path: for messages
    counts: the N that may be; empty where a hash has vouched for the content

    Raises ConfigError: wrong magic number, size of an image, N or length.
    """
    if len(content) < IMAGES_HEADER:
        raise root.damaged(path, f"a header of {IMAGES_HEADER} bytes", f"{len(content)}")
    magic, count, rows, columns = struct.unpack_from(">IIII", content)
    if (magic, rows, columns) != (IMAGES_MAGIC, SIDE, SIDE):
        expected = f"magic number {IMAGES_MAGIC} and images of {SIDE}x{SIDE}"
        raise root.damaged(path, expected, f"{magic} and {rows}x{columns}")
    _check_count(root, path, count, counts, "images")
    _check_length(root, path, content, IMAGES_HEADER + PIXELS * count)
    pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=IMAGES_HEADER)
    return pixels.reshape(count, 1, SIDE, SIDE)


def labels_from(
    root: Root, path: Path | str, content: bytes, counts: Sequence[int] = (), classes: range = range(10)
) -> Tensor:
    """Labels (N,) int64 of a file of labels, counted from 0.

    classes: the labels in the file that may be; the first of them becomes 0

    Raises ConfigError: wrong magic number, N, length or label.
    """
    if len(content) < LABELS_HEADER:
        raise root.damaged(path, f"a header of {LABELS_HEADER} bytes", f"{len(content)}")
    magic, count = struct.unpack_from(">II", content)
    if magic != LABELS_MAGIC:
        raise root.damaged(path, f"magic number {LABELS_MAGIC}", f"{magic}")
    _check_count(root, path, count, counts, "labels")
    _check_length(root, path, content, LABELS_HEADER + count)
    labels = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=LABELS_HEADER).long()
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < classes[0] or highest > classes[-1]:
        raise root.damaged(path, f"labels {classes[0]} to {classes[-1]}", f"{lowest} to {highest}")
    return labels - classes[0]


def _check_count(root: Root, path: Path | str, count: int, counts: Sequence[int], what: str) -> None:
    if count == 0 or (counts and count not in counts):
        expected = " or ".join(map(str, counts)) or "some"
        raise root.damaged(path, f"{expected} {what}", f"{count}")


def _check_length(root: Root, path: Path | str, content: bytes, expected: int) -> None:
    if len(content) != expected:
        raise root.damaged(path, f"{expected} bytes", f"{len(content)}")
