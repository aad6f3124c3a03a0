"""MNIST: 28x28 handwritten digits, found on disk or downloaded by torchvision, and verified before use."""

import contextlib
import hashlib
import io
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from torch import Tensor

from metvae_cli.data.base import Binarization, Dataset, Split, require_at_least
from metvae_cli.data.binarization import binarized_dataset, require_binarization
from metvae_cli.errors import ConfigError
from metvae_cli.torchvision_import import import_torchvision

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"

# Of the uncompressed files. torchvision verifies only what it downloads, not what it finds on disk.
EXPECTED_SHA256 = {
    TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

# No network, a broken connection, a damaged archive, an MD5 that differs (torchvision: RuntimeError).
DOWNLOAD_ERRORS = (OSError, RuntimeError, HTTPException, EOFError, zlib.error)


class MNIST:
    """Event shape (1, 28, 28), labels 0..9; the validation split is the end of the official train set.

    batch_size: training data per iteration
    binarization: dynamic, static, threshold or none
    root: folder that holds MNIST/raw/, or raw/, or the four uncompressed idx files themselves
    download: fetch the files into root/MNIST/raw/ where they are missing
    num_valid: images taken from the end of the 60000 official training images
    split_seed: seed of the pixels that are drawn once
    dequantize: with binarization=none: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        binarization: Binarization = "dynamic",
        root: str = "data",
        download: bool = True,
        num_valid: int = 10000,
        split_seed: int = 0,
        dequantize: bool = False,
    ) -> None:
        require_at_least(1, batch_size=batch_size, num_valid=num_valid)
        require_at_least(0, split_seed=split_seed)
        require_binarization(binarization, dequantize=dequantize)
        self.batch_size = batch_size
        self.binarization: Binarization = binarization
        self.root = root
        self.download = download
        self.num_valid = num_valid
        self.split_seed = split_seed
        self.dequantize = dequantize

    def load(self) -> Dataset:
        """The three splits.

        Raises ConfigError where files are missing, damaged or cannot be downloaded, or num_valid leaves no
        training data.
        """
        folder = self._folder()
        verify_files(folder, self.root)
        images, labels = _read(folder, TRAIN_IMAGES, TRAIN_LABELS)
        num_train = len(images) - self.num_valid
        if num_train < 1:
            raise ConfigError(
                f"dataset.num_valid={self.num_valid}: nothing is left of the {len(images)} training images; "
                f"must be at most {len(images) - 1}"
            )
        return binarized_dataset(
            "mnist",
            train=Split(images[:num_train], labels[:num_train]),
            valid=Split(images[num_train:], labels[num_train:]),
            test=Split(*_read(folder, TEST_IMAGES, TEST_LABELS)),
            binarization=self.binarization,
            seed=self.split_seed,
            dequantize=self.dequantize,
        )

    def _folder(self) -> Path:
        """The folder with the four files, after a download if that is asked for and needed."""
        root = Path(self.root).expanduser()
        candidates = (root / "MNIST" / "raw", root / "raw", root)
        for folder in candidates:
            if not missing_files(folder):
                return folder
        if self.download:
            download_files(root, self.root)
            return candidates[0]
        fullest = min(candidates, key=lambda folder: len(missing_files(folder)))
        raise ConfigError(
            f"dataset.root={self.root}: {', '.join(missing_files(fullest))} not found in {fullest}; "
            "set dataset.download=true, or point dataset.root= at a folder with the four uncompressed files"
        )


def missing_files(folder: Path) -> list[str]:
    """Names of the MNIST files that `folder` does not hold."""
    return [name for name in EXPECTED_SHA256 if not os.path.isfile(folder / name)]


def verify_files(folder: Path, root: str) -> None:
    """Raise ConfigError for the first of the four files that cannot be read or is not the published one."""
    for name, expected in EXPECTED_SHA256.items():
        path = folder / name
        remedy = "delete it and run again with dataset.download=true"
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(f"dataset.root={root}: {path} cannot be read ({reason}); {remedy}") from error
        if found != expected:
            raise ConfigError(
                f"dataset.root={root}: {path} is damaged (expected SHA-256 {expected}, found {found}); {remedy}"
            )


def download_files(root: Path, key: str) -> None:
    """Download the files (torchvision verifies each archive), then move the missing ones to root/MNIST/raw.

    key: dataset.root as the user wrote it. Raises ConfigError; a failed download leaves no file behind.
    """
    torchvision = import_torchvision()
    target = root / "MNIST" / "raw"
    made = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Beside the target, hence on the same disk: each move is one atomic rename.
        with (
            tempfile.TemporaryDirectory(prefix=".mnist-download-", dir=root) as staging,
            _quiet_unless_terminal(),
        ):
            torchvision.datasets.MNIST(staging, download=True)
            fetched = Path(staging) / "MNIST" / "raw"
            target.mkdir(parents=True, exist_ok=True)
            for name in missing_files(target):
                os.replace(fetched / name, target / name)
    except DOWNLOAD_ERRORS as error:
        if made:
            with contextlib.suppress(OSError):  # not made after all, or holds files that arrived whole
                root.rmdir()
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"dataset.root={key}: MNIST could not be downloaded ({reason}); put the four uncompressed files "
            f"({', '.join(EXPECTED_SHA256)}) in {target}, or point dataset.root= at a folder that has them"
        ) from error


@contextlib.contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
    """Keep torchvision's progress bars out of log files."""
    if sys.stderr.isatty():
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield


def _read(folder: Path, images_name: str, labels_name: str) -> tuple[Tensor, Tensor]:
    """Grey levels (N, 1, 28, 28) uint8 and labels (N,) int64."""
    reader = import_torchvision().datasets.mnist
    images = reader.read_image_file(str(folder / images_name))
    return images.unsqueeze(1), reader.read_label_file(str(folder / labels_name))
