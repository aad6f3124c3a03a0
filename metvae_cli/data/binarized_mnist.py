"""Binarized MNIST of Larochelle and Murray: one fixed draw of every pixel, 50000 train, 10000 valid, 10000 test."""

import io
from pathlib import Path

import numpy as np
import torch

from metvae_cli.data.base import Dataset, Split, require_at_least
from metvae_cli.data.matlab import read_mat
from metvae_cli.data.official import GET_AGAIN, Root, first_with

COUNTS = {"train": 50000, "valid": 10000, "test": 10000}
PIXELS = 784
EVENT = (1, 28, 28)
NPZ, MAT = "binarized_mnist.npz", "binarized_mnist.mat"
AMAT = {part: f"binarized_mnist_{part}.amat" for part in COUNTS}
# 784 digits with a space between each two; the end of a line may be a space, a return and a newline.
LINE = 2 * PIXELS - 1
LINE_END = 3
HEADER_LIMIT = 4096
MAX_MAT_BYTES = 1 << 30


class BinarizedMNIST:
    """Event shape (1, 28, 28), pixels 0 or 1 as published, no labels. The test part is ordered by class.

    batch_size: training data per iteration
    root: folder that holds binarized_mnist.npz, binarized_mnist.mat or the three published text files
        binarized_mnist_{train,valid,test}.amat; or the .npz or .mat file itself

    No published hash is at hand: names, counts, shapes, lengths and that every pixel is 0 or 1 are checked.

    Raises ValueError for an argument out of range.
    """

    def __init__(self, batch_size: int = 100, root: str = "data") -> None:
        require_at_least(1, batch_size=batch_size)
        self.batch_size = batch_size
        self.root = root

    def load(self) -> Dataset:
        """The three published splits. Raises ConfigError: files missing or damaged."""
        root = Root(self.root, GET_AGAIN)
        path = _find(root)
        if path.suffix == ".npz":
            parts = _read_npz(root, path)
        elif path.suffix == ".mat":
            parts = _read_mat(root, path)
        else:
            parts = {part: _read_amat(root, path / name, COUNTS[part]) for part, name in AMAT.items()}
        splits = {part: _split(root, path, part, pixels) for part, pixels in parts.items()}
        return Dataset("binarized_mnist", splits["train"], splits["valid"], splits["test"], support="binary")


def _find(root: Root) -> Path:
    """The .npz or .mat file, or the folder with the text files."""
    if root.path.is_file():
        if root.path.suffix in (".npz", ".mat"):
            return root.path
        raise root.error("must be a folder, or a file that ends in .npz or .mat")
    for folder in (root.path, root.path / "binarized_mnist"):
        for name in (NPZ, MAT):
            if (folder / name).is_file():
                return folder / name
        if first_with([folder], tuple(AMAT.values())) is not None:
            return folder
    raise root.error(
        f"none of {NPZ}, {MAT} and the three files {', '.join(AMAT.values())} found in {root.path}; point "
        "dataset.root= at a folder that has one of these forms"
    )


def _split(root: Root, path: Path, part: str, pixels: np.ndarray) -> Split:
    """Pixels 0 and 1, any shape (N, ...), stored as the grey levels 0 and 255."""
    if ((pixels != 0) & (pixels != 1)).any():
        raise root.damaged(path, f"pixels 0 and 1 in {part!r}", "others")
    levels = pixels.astype(np.uint8).reshape(-1, *EVENT) * np.uint8(255)
    return Split(torch.from_numpy(levels))


def _read_npz(root: Root, path: Path) -> dict[str, np.ndarray]:
    """The three arrays (N, 1, 28, 28) uint8. Their headers are checked before numpy makes room for anything."""
    found = {}
    with root.unzip(path) as archive:
        for part, count in COUNTS.items():
            member = f"{part}.npy"
            content = root.member(archive, member, count * PIXELS + HEADER_LIMIT)
            where = f"{path}:{member}"
            stream = io.BytesIO(content)
            try:
                version = np.lib.format.read_magic(stream)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, fortran, dtype = read_header[version](stream)
            except (ValueError, KeyError, EOFError, SyntaxError) as error:
                raise root.unreadable(where, error) from error
            if shape != (count, *EVENT) or fortran or dtype != np.uint8:
                raise root.damaged(where, f"{(count, *EVENT)} uint8", f"{shape} {dtype}")
            data = content[stream.tell() :]
            if len(data) != count * PIXELS:
                raise root.damaged(where, f"{count * PIXELS} bytes of pixels", f"{len(data)}")
            found[part] = np.frombuffer(data, dtype=np.uint8).reshape(shape)
    return found


def _read_mat(root: Root, path: Path) -> dict[str, np.ndarray]:
    size = path.stat().st_size
    if size > MAX_MAT_BYTES:
        raise root.damaged(path, f"at most {MAX_MAT_BYTES} bytes", f"{size}")
    return read_mat(root, path, {part: [(n, PIXELS), (n, 28, 28), (n, *EVENT)] for part, n in COUNTS.items()})


def _read_amat(root: Root, path: Path, count: int) -> np.ndarray:
    """Pixels (count, 784) uint8 of a text file, one image per line."""
    lines = root.read(path, count * (LINE + LINE_END)).split(b"\n")
    lines = [line.rstrip() for line in lines]
    if lines and not lines[-1]:
        lines.pop()  # what follows the last newline
    if len(lines) != count:
        raise root.damaged(path, f"{count} lines", f"{len(lines)}")
    wrong = next((number for number, line in enumerate(lines) if len(line) != LINE), None)
    if wrong is not None:
        raise root.damaged(path, f"{PIXELS} pixels of 0 or 1 in line {wrong + 1}", f"{len(lines[wrong])} characters")
    characters = np.frombuffer(b"".join(lines), dtype=np.uint8).reshape(count, LINE)
    pixels = characters[:, ::2] - np.uint8(ord("0"))
    bad = (characters[:, 1::2] != ord(" ")).any(axis=1) | (pixels > 1).any(axis=1)
    if bad.any():
        line = int(bad.argmax())
        raise root.damaged(path, f"{PIXELS} pixels of 0 or 1 in line {line + 1}", "another character")
    return pixels
