"""Data sets in MNIST's format: Fashion-MNIST, Kuzushiji-MNIST and EMNIST, from their published archives.

The publishers' MD5 sums are of the compressed archives, so those are what a download keeps and what is verified and
read where it is there. Of uncompressed files no published sum is at hand: their magic number, counts, exact length and
labels are checked, which finds a wrong or cut file but not a changed pixel.
"""

import contextlib
import hashlib
import zipfile
from pathlib import Path
from typing import Literal

from torch import Tensor

from metvae_cli.data.base import Binarization, Dataset, Split
from metvae_cli.data.idx import images_from, images_limit, labels_from, labels_limit, read_file
from metvae_cli.data.mnist import EXPECTED_SHA256
from metvae_cli.data.official import OfficialImages, Root, download_files, fetch_into, first_with
from metvae_cli.torchvision_import import import_torchvision

EmnistSplit = Literal["balanced", "digits", "letters", "byclass", "bymerge", "mnist"]

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
NUM_TRAIN, NUM_TEST = (60000,), (10000,)

# Of the .gz archives, as torchvision has them from the publishers.
FASHION_MD5 = {
    TRAIN[0]: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    TRAIN[1]: "25c81989df183df01b3e8a0aad5dffbe",
    TEST[0]: "bef4ecab320f06d8554ea6380940ec79",
    TEST[1]: "bb300cfdad3c16e7a12a480ee83cd310",
}
KMNIST_MD5 = {
    TRAIN[0]: "bdb82020997e1d708af4cf47b453dcf7",
    TRAIN[1]: "e144d726b3acfaa3e44228e80efcd344",
    TEST[0]: "5c965bf0a639b31b8f53240b1b52f4d7",
    TEST[1]: "7320c461ea6c1c855c0b718fb2a4b134",
}
EMNIST_ARCHIVE = "gzip.zip"
EMNIST_MD5 = "58c8d27c78d21e728a6bc7b3cc06412e"
# Train and test images that a file may hold. `letters` was published in two sizes.
EMNIST_COUNTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "balanced": ((112800,), (18800,)),
    "digits": ((240000,), (40000,)),
    "letters": ((124800, 88800), (20800, 14800)),
    "byclass": ((697932,), (116323,)),
    "bymerge": ((697932,), (116323,)),
    "mnist": ((60000,), (10000,)),
}
EMNIST_CLASSES = {
    "balanced": range(47),
    "digits": range(10),
    "letters": range(1, 27),
    "byclass": range(62),
    "bymerge": range(47),
    "mnist": range(10),
}
# Compression expands what cannot be compressed by a few bytes in ten thousand.
ARCHIVE_SLACK = 1 << 20


class FashionMNIST(OfficialImages):
    """Event shape (1, 28, 28), labels 0..9 for kinds of clothing; validation is the end of the official train set.

    batch_size: training data per iteration
    binarization: dynamic, static, threshold or none
    root: folder that holds FashionMNIST/raw/, or raw/, or the four idx files themselves, as .gz archives (verified by
        their published MD5) or uncompressed (only their structure is verified: no published hash is at hand)
    download: fetch the archives into root/FashionMNIST/raw/ where files are missing
    num_valid: images taken from the end of the 60000 official training images
    split_seed: seed of the pixels that are drawn once
    dequantize: with binarization=none: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    Raises ValueError for an argument out of range.
    """

    def load(self) -> Dataset:
        """The three splits. Raises ConfigError: files missing, damaged, not to be had; no training data left."""
        return _load_archives(self, "FashionMNIST", FASHION_MD5)


class KMNIST(OfficialImages):
    """Event shape (1, 28, 28), labels 0..9 for cursive Japanese letters; validation is the end of the train set.

    batch_size: training data per iteration
    binarization: dynamic, static, threshold or none
    root: folder that holds KMNIST/raw/, or raw/, or the four idx files themselves, as .gz archives (verified by their
        published MD5) or uncompressed (only their structure is verified: no published hash is at hand)
    download: fetch the archives into root/KMNIST/raw/ where files are missing
    num_valid: images taken from the end of the 60000 official training images
    split_seed: seed of the pixels that are drawn once
    dequantize: with binarization=none: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    Raises ValueError for an argument out of range.
    """

    def load(self) -> Dataset:
        """The three splits. Raises ConfigError: files missing, damaged, not to be had; no training data left."""
        return _load_archives(self, "KMNIST", KMNIST_MD5)


class EMNIST(OfficialImages):
    """Event shape (1, 28, 28), handwritten characters, upright; labels from 0, validation the end of the train set.

    batch_size: training data per iteration
    split: balanced (47 classes), digits, letters (26), byclass (62), bymerge (47) or mnist (10)
    binarization: dynamic, static, threshold or none
    root: folder that holds EMNIST/raw/, or raw/, or the files themselves: gzip.zip (verified by its published MD5),
        or the split's four idx files, as .gz or uncompressed (only their structure is verified)
    download: fetch gzip.zip (562 MB) into root/EMNIST/raw/ where files are missing
    num_valid: images taken from the end of the official training images
    split_seed: seed of the pixels that are drawn once
    dequantize: with binarization=none: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        split: EmnistSplit = "balanced",
        binarization: Binarization = "dynamic",
        root: str = "data",
        download: bool = True,
        num_valid: int = 10000,
        split_seed: int = 0,
        dequantize: bool = False,
    ) -> None:
        if split not in EMNIST_COUNTS:
            raise ValueError(f"split={split}: must be one of {', '.join(EMNIST_COUNTS)}")
        super().__init__(batch_size, binarization, root, download, num_valid, split_seed, dequantize)
        self.part: EmnistSplit = split

    def load(self) -> Dataset:
        """The three splits. Raises ConfigError: files missing, damaged, not to be had; no training data left."""
        root = Root(self.root)
        folder = self._folder(root)
        archive = folder / EMNIST_ARCHIVE
        if not archive.is_file():
            train, test = (self._read(root, folder, train, None) for train in (True, False))
        else:
            root.verify(archive, "md5", EMNIST_MD5)
            with root.unzip(archive) as opened:
                train, test = (self._read(root, folder, train, opened) for train in (True, False))
        return self.three_splits("emnist", Split(*train), Split(*test))

    def _folder(self, root: Root) -> Path:
        folders = _folders(root, "EMNIST")
        names = [name for train in (True, False) for name in self._names(train)]
        found = first_with(folders, [EMNIST_ARCHIVE]) or _first_with_idx(folders, names)
        if found is not None:
            return found
        if not self.download:
            raise root.error(
                f"neither {EMNIST_ARCHIVE} nor all of {', '.join(names)} found in {folders[0]}; set "
                "dataset.download=true, or point dataset.root= at a folder that has them"
            )
        advice = f"put {EMNIST_ARCHIVE} in {folders[0]}, or point dataset.root= at a folder that has it"
        download_files(root, "EMNIST", folders[0], [EMNIST_ARCHIVE], _fetch_emnist, advice)
        return folders[0]

    def _names(self, train: bool) -> tuple[str, str]:
        prefix = f"emnist-{self.part}-{'train' if train else 'test'}"
        return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"

    def _read(self, root: Root, folder: Path, train: bool, archive: zipfile.ZipFile | None) -> tuple[Tensor, Tensor]:
        """Upright grey levels (N, 1, 28, 28) and labels (N,), from the archive where there is one."""
        counts = EMNIST_COUNTS[self.part][0 if train else 1]
        images, labels = self._names(train)

        def content(name: str, limit: int) -> bytes:
            if archive is None:
                return read_file(root, folder, name, None, limit)
            member = f"gzip/{name}.gz"
            packed = root.member(archive, member, limit + ARCHIVE_SLACK)
            return root.gunzip(f"{archive.filename}:{member}", packed, limit)

        pixels = images_from(root, folder / images, content(images, images_limit(counts)), counts)
        numbers = labels_from(
            root, folder / labels, content(labels, labels_limit(counts)), counts, EMNIST_CLASSES[self.part]
        )
        _check_pairs(root, folder / labels, pixels, numbers)
        return pixels.transpose(2, 3).contiguous(), numbers


def _load_archives(source: OfficialImages, title: str, md5: dict[str, str]) -> Dataset:
    """Fashion-MNIST or KMNIST: four idx files, each with the MD5 of its archive."""
    root = Root(source.root)
    folders = _folders(root, title)
    folder = _first_with_idx(folders, list(md5))
    if folder is None:
        folder = folders[0]
        archives = [f"{name}.gz" for name in md5]
        if not source.download:
            fullest = min(folders, key=lambda folder: len(_missing_idx(folder, list(md5))))
            raise root.error(
                f"{', '.join(_missing_idx(fullest, list(md5)))} not found in {fullest}, with or without .gz; set "
                "dataset.download=true, or point dataset.root= at a folder with the four files"
            )
        advice = f"put the four files ({', '.join(archives)}) in {folder}, or point dataset.root= at a folder with them"

        def fetch(staging: Path) -> Path:
            mirrors = getattr(import_torchvision().datasets, title).mirrors
            for name in _missing_idx(folder, list(md5)):
                fetch_into(staging, [mirror + f"{name}.gz" for mirror in mirrors], f"{name}.gz", md5[name])
            return staging

        wanted = [f"{name}.gz" for name in _missing_idx(folder, list(md5))]
        download_files(root, title, folder, wanted, fetch, advice)
    train = _read_pair(root, folder, TRAIN, md5, NUM_TRAIN)
    return source.three_splits(title.lower(), train, _read_pair(root, folder, TEST, md5, NUM_TEST))


def _read_pair(root: Root, folder: Path, names: tuple[str, str], md5: dict[str, str], counts: tuple[int, ...]) -> Split:
    images, labels = names
    _refuse_mnist(root, folder, images)
    pixels = images_from(
        root, folder / images, read_file(root, folder, images, md5[images], images_limit(counts)), counts
    )
    numbers = labels_from(
        root, folder / labels, read_file(root, folder, labels, md5[labels], labels_limit(counts)), counts
    )
    return Split(pixels, numbers)


def _refuse_mnist(root: Root, folder: Path, images: str) -> None:
    """Raise ConfigError for MNIST's own uncompressed file: it has the same name, size and structure."""
    path, digest = folder / images, EXPECTED_SHA256[images]
    if (folder / f"{images}.gz").is_file() or not path.is_file():
        return
    with contextlib.suppress(OSError), path.open("rb") as file:  # reading it will say what is wrong
        if hashlib.file_digest(file, "sha256").hexdigest() == digest:
            raise root.error(f"{path} is MNIST's file of that name; point dataset.root= at a folder of its own")


def _check_pairs(root: Root, path: Path, pixels: Tensor, labels: Tensor) -> None:
    if len(pixels) != len(labels):
        raise root.damaged(path, f"{len(pixels)} labels, as many as images", f"{len(labels)}")


def _folders(root: Root, title: str) -> tuple[Path, Path, Path]:
    return root.path / title / "raw", root.path / "raw", root.path


def _missing_idx(folder: Path, names: list[str]) -> list[str]:
    """Names of the files that `folder` holds neither as they are nor as .gz."""
    return [name for name in names if not (folder / name).is_file() and not (folder / f"{name}.gz").is_file()]


def _first_with_idx(folders: tuple[Path, ...], names: list[str]) -> Path | None:
    return next((folder for folder in folders if not _missing_idx(folder, names)), None)


def _fetch_emnist(staging: Path) -> Path:
    fetch_into(staging, [import_torchvision().datasets.EMNIST.url], EMNIST_ARCHIVE, EMNIST_MD5)
    return staging
