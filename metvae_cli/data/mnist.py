"""MNIST: 28x28 handwritten digits, found on disk or downloaded, and verified before use."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from metvae_cli.data.base import Dataset, Split
from metvae_cli.data.idx import images_from, images_limit, labels_from, labels_limit
from metvae_cli.data.official import OfficialImages, Root, download_files, fetch_into, first_with, missing_files
from metvae_cli.torchvision_import import import_torchvision

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
MOST_IMAGES = (60000,)

# Of the uncompressed files.
EXPECTED_SHA256 = {
    TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class MNIST(OfficialImages):
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

    def load(self) -> Dataset:
        """The three splits.

        Raises ConfigError where files are missing, damaged or cannot be downloaded, or num_valid leaves no
        training data.
        """
        root = Root(self.root)
        folder = self._folder(root)
        for name, expected in EXPECTED_SHA256.items():
            root.verify(folder / name, "sha256", expected)
        train = Split(*_read(root, folder, TRAIN_IMAGES, TRAIN_LABELS))
        return self.three_splits("mnist", train, Split(*_read(root, folder, TEST_IMAGES, TEST_LABELS)))

    def _folder(self, root: Root) -> Path:
        """The folder with the four files, after a download if that is asked for and needed."""
        names = tuple(EXPECTED_SHA256)
        candidates = (root.path / "MNIST" / "raw", root.path / "raw", root.path)
        folder = first_with(candidates, names)
        if folder is not None:
            return folder
        if self.download:
            target = candidates[0]
            advice = (
                f"put the four uncompressed files ({', '.join(names)}) in {target}, or point dataset.root= at a "
                "folder that has them"
            )

            def fetch(staging: Path) -> Path:
                return _fetch(root, staging, missing_files(target, names))

            download_files(root, "MNIST", target, names, fetch, advice)
            return target
        fullest = min(candidates, key=lambda folder: len(missing_files(folder, names)))
        raise root.error(
            f"{', '.join(missing_files(fullest, names))} not found in {fullest}; set dataset.download=true, or "
            "point dataset.root= at a folder with the four uncompressed files"
        )


def _fetch(root: Root, staging: Path, missing: Sequence[str]) -> Path:
    """Each archive, verified and unpacked."""
    mirrors, sums = import_torchvision().datasets.MNIST.mirrors, archive_sums()
    for name in missing:
        fetch_into(staging, [f"{mirror}{name}.gz" for mirror in mirrors], f"{name}.gz", sums[name])
        unpacked = root.gunzip(staging / f"{name}.gz", staging / f"{name}.gz", images_limit(MOST_IMAGES))
        (staging / name).write_bytes(unpacked)
    return staging


def archive_sums() -> dict[str, str]:
    """MD5 of each .gz archive, as torchvision has them from the publisher."""
    return {name.removesuffix(".gz"): md5 for name, md5 in import_torchvision().datasets.MNIST.resources}


def _read(root: Root, folder: Path, images: str, labels: str) -> tuple[Tensor, Tensor]:
    """Grey levels (N, 1, 28, 28) uint8 and labels (N,) int64."""
    pixels = images_from(root, folder / images, root.read(folder / images, images_limit(MOST_IMAGES)))
    return pixels, labels_from(root, folder / labels, root.read(folder / labels, labels_limit(MOST_IMAGES)))
