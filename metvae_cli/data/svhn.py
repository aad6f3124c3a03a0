"""SVHN: 32x32 colour photographs of house numbers, cropped to one digit, from the published MATLAB files."""

from pathlib import Path

import numpy as np
import torch

from metvae_cli.data.base import Dataset, Split
from metvae_cli.data.matlab import read_mat
from metvae_cli.data.official import OfficialPhotographs, Root, download_files, fetch_into, first_with, missing_files
from metvae_cli.torchvision_import import import_torchvision

TRAIN, TEST = "train_32x32.mat", "test_32x32.mat"
# As torchvision has them.
EXPECTED_MD5 = {TRAIN: "e26dedcc434d2e4c54c9b2d4a06d8373", TEST: "eb5a983be6a315427106f1b164d9cef3"}
COUNTS = {TRAIN: 73257, TEST: 26032}


class SVHN(OfficialPhotographs):
    """Event shape (3, 32, 32), labels 0..9; the validation split is the end of the official train set.

    batch_size: training data per iteration
    root: folder that holds SVHN/ with train_32x32.mat and test_32x32.mat, or the two files themselves
    download: fetch the two files into root where they are missing
    num_valid: images taken from the end of the 73257 official training images
    split_seed: seed of the noise of held-out data
    dequantize: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    Both files are verified by their published MD5.

    Raises ValueError for an argument out of range.
    """

    def load(self) -> Dataset:
        """The three splits. Raises ConfigError: files missing, damaged, not to be had; no training data left."""
        root = Root(self.root)
        folder = self._folder(root)
        for name, expected in EXPECTED_MD5.items():
            root.verify(folder / name, "md5", expected)
        return self.three_splits("svhn", _read(root, folder / TRAIN), _read(root, folder / TEST))

    def _folder(self, root: Root) -> Path:
        names = tuple(EXPECTED_MD5)
        folders = (root.path / "SVHN", root.path)
        found = first_with(folders, names)
        if found is not None:
            return found
        if not self.download:
            fullest = min(reversed(folders), key=lambda folder: len(missing_files(folder, names)))
            raise root.error(
                f"{', '.join(missing_files(fullest, names))} not found in {fullest}; set dataset.download=true, or "
                "point dataset.root= at a folder that has them"
            )
        advice = f"put {TRAIN} and {TEST} in {root.path}, or point dataset.root= at a folder that has them"

        def fetch(staging: Path) -> Path:
            urls = {entry[1]: entry[0] for entry in import_torchvision().datasets.SVHN.split_list.values()}
            for name in missing_files(root.path, names):
                fetch_into(staging, [urls[name]], name, EXPECTED_MD5[name])
            return staging

        download_files(root, "SVHN", root.path, names, fetch, advice)
        return root.path


def _read(root: Root, path: Path) -> Split:
    """Levels (N, 3, 32, 32) uint8 and labels (N,), from X (32, 32, 3, N) and y (N, 1) in which 10 is the digit 0."""
    count = COUNTS[path.name]
    arrays = read_mat(root, path, {"X": [(32, 32, 3, count)], "y": [(count, 1)]})
    if arrays["X"].dtype != np.uint8:
        raise root.damaged(path, "'X' in bytes", str(arrays["X"].dtype))
    digits = arrays["y"][:, 0].astype(np.int64)
    if digits.min() < 1 or digits.max() > 10:
        raise root.damaged(path, "labels 1 to 10", f"{digits.min()} to {digits.max()}")
    pixels = np.ascontiguousarray(arrays["X"].transpose(3, 2, 0, 1))
    return Split(torch.from_numpy(pixels), torch.from_numpy(digits % 10))
