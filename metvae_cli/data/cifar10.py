"""CIFAR-10: 32x32 colour photographs, from the published archive or its folder, each file verified."""

import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch

from metvae_cli.data.base import Dataset, Split
from metvae_cli.data.official import OfficialPhotographs, Root, download_files, fetch_into, first_with, missing_files
from metvae_cli.data.safe_pickle import unpickle
from metvae_cli.torchvision_import import import_torchvision

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
TEST_BATCH = "test_batch"
# Published with the data, as torchvision has them; the last is the test set.
BATCH_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    TEST_BATCH: "40351d587109b95175f43aff81a1287e",
}
IMAGES_PER_BATCH = 10000
SHAPE = (3, 32, 32)
# A label, a file name and the pixels; the rest of a batch is a few dozen bytes.
BYTES_PER_IMAGE, BYTES_BESIDE = 3072 + 100, 4096


class CIFAR10(OfficialPhotographs):
    """Event shape (3, 32, 32), labels 0..9; the validation split is the end of the official train set.

    batch_size: training data per iteration
    root: folder that holds cifar-10-batches-py/, or its files themselves, or cifar-10-python.tar.gz
    download: fetch cifar-10-python.tar.gz into root where the data are missing
    num_valid: images taken from the end of the 50000 official training images
    split_seed: seed of the noise of held-out data
    dequantize: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    The archive and every batch are verified by their published MD5. The batches are pickles; what they name is not run.

    Raises ValueError for an argument out of range.
    """

    def load(self) -> Dataset:
        """The three splits. Raises ConfigError: files missing, damaged, not to be had; no training data left."""
        root = Root(self.root)
        names = tuple(BATCH_MD5)
        folder = first_with((root.path / FOLDER, root.path), names)
        if folder is not None:
            contents = {name: root.read(folder / name, _limit()) for name in names}
            where = folder
        else:
            where = self._archive(root)
            root.verify(where, "md5", ARCHIVE_MD5)
            contents = _untar(root, where)
        train = [_batch(root, where / name, contents[name], BATCH_MD5[name]) for name in names if name != TEST_BATCH]
        test = _batch(root, where / TEST_BATCH, contents[TEST_BATCH], BATCH_MD5[TEST_BATCH])
        values, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
        return self.three_splits("cifar10", Split(values, labels), Split(*test))

    def _archive(self, root: Root) -> Path:
        """The archive, after a download if that is asked for and needed."""
        archive = root.path / ARCHIVE
        if archive.is_file():
            return archive
        if not self.download:
            folder = root.path / FOLDER
            names = ", ".join(missing_files(folder, tuple(BATCH_MD5)))
            raise root.error(
                f"{names} not found in {folder}, nor {ARCHIVE} in {root.path}; set dataset.download=true, or point "
                "dataset.root= at a folder that has them"
            )
        advice = f"put {ARCHIVE} in {root.path}, or point dataset.root= at a folder that has it"
        download_files(root, "CIFAR10", root.path, [ARCHIVE], _fetch, advice)
        return archive


def _fetch(staging: Path) -> Path:
    fetch_into(staging, [import_torchvision().datasets.CIFAR10.url], ARCHIVE, ARCHIVE_MD5)
    return staging


def _limit() -> int:
    return BYTES_PER_IMAGE * IMAGES_PER_BATCH + BYTES_BESIDE


def _untar(root: Root, archive: Path) -> dict[str, bytes]:
    """The batches by name, read from the archive; nothing is unpacked to the disk."""
    wanted: dict[str, str] = {f"{FOLDER}/{name}": name for name in BATCH_MD5}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                name = wanted.get(member.name)
                if name is None or not member.isreg():
                    continue
                if member.size > _limit():
                    raise root.damaged(archive / member.name, f"at most {_limit()} bytes", f"{member.size}")
                file = opened.extractfile(member)
                found[name] = b"" if file is None else file.read()
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise root.unreadable(archive, error) from error
    missing = [name for name in wanted if wanted[name] not in found]
    if missing:
        raise root.error(f"{archive} holds no {', '.join(missing)}; {root.remedy}")
    return found


def _batch(root: Root, path: Path, content: bytes, md5: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels (N, 3, 32, 32) uint8 and labels (N,) int64 of one verified batch."""
    root.verify_bytes(content, path, md5)
    batch = unpickle(root, path, content)
    pixels = batch.bytes_array("data", (IMAGES_PER_BATCH, int(np.prod(SHAPE))))
    labels = batch.integers("labels", IMAGES_PER_BATCH, below=10)
    # A copy: the array lies in the file's bytes, which may not be written to.
    return torch.from_numpy(pixels.reshape(-1, *SHAPE).copy()), torch.tensor(labels, dtype=torch.int64)
