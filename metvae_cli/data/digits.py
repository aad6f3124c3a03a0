"""The 1797 handwritten 8x8 digits that come with scikit-learn: real images without a download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metvae_cli.data.base import Binarization, Dataset, Split, require_at_least
from metvae_cli.data.binarization import binarized_dataset, require_binarization
from metvae_cli.data.splits import seeded_split

INK_LEVELS = 16
FILE = ("datasets", "data", "digits.csv.gz")  # in scikit-learn's folder


class Digits:
    """Event shape (1, 8, 8), labels 0..9; a seeded permutation makes the splits.

    batch_size: training data per iteration
    binarization: dynamic, static, threshold or none
    num_valid, num_test: held-out images; the rest is for training
    split_seed: seed of the split and of the pixels that are drawn once
    dequantize: with binarization=none: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        batch_size: int = 64,
        binarization: Binarization = "dynamic",
        num_valid: int = 200,
        num_test: int = 300,
        split_seed: int = 0,
        dequantize: bool = False,
    ) -> None:
        require_at_least(1, batch_size=batch_size, num_valid=num_valid, num_test=num_test)
        require_at_least(0, split_seed=split_seed)
        require_binarization(binarization, dequantize=dequantize)
        self.batch_size = batch_size
        self.binarization: Binarization = binarization
        self.num_valid = num_valid
        self.num_test = num_test
        self.split_seed = split_seed
        self.dequantize = dequantize

    def load(self) -> Dataset:
        """The three splits. Raises ConfigError where the held-out parts leave no image for training."""
        images, labels = _read()
        train, valid, test = seeded_split(len(images), self.num_valid, self.num_test, self.split_seed)
        return binarized_dataset(
            "digits",
            train=Split(images[train], labels[train]),
            valid=Split(images[valid], labels[valid]),
            test=Split(images[test], labels[test]),
            binarization=self.binarization,
            seed=self.split_seed,
            dequantize=self.dequantize,
        )


def _read() -> tuple[Tensor, Tensor]:
    """Grey levels (1797, 1, 8, 8) uint8 and labels (1797,) int64."""
    table = torch.from_numpy(_table())
    levels = table[:, :-1].float().mul(255 / INK_LEVELS).round().to(torch.uint8)
    return levels.reshape(-1, 1, 8, 8), table[:, -1].long()


def _table() -> np.ndarray:
    """Ink 0..16 of 64 pixels, and the digit: (1797, 65)."""
    # To read the file takes hundredths of a second, and to import scikit-learn, which would do it, most of one.
    found = find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder, *FILE)).is_file():
            return np.loadtxt(path, delimiter=",", dtype=np.int64)
    from sklearn.datasets import load_digits

    ink, digits = load_digits(return_X_y=True)
    return np.column_stack([ink, digits]).astype(np.int64)
