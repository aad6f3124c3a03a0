"""The user's own images: a folder of PNG and JPEG files, in memory where they fit, else decoded when asked for."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from metvae_cli.data.base import Binarization, Dataset, Split, require_at_least
from metvae_cli.data.binarization import binarized_dataset, require_binarization
from metvae_cli.data.image_files import SUFFIXES, ImageFileError, LazyImages, decode_all, find_images, header
from metvae_cli.data.splits import seeded_split
from metvae_cli.errors import ConfigError

log = logging.getLogger(__name__)

MEGABYTE = 2**20


class FolderData:
    """Event shape (1, H, W) or (3, H, W): all PNG and JPEG files below a folder, in the order of their names.

    Sub-directories of the first level are labels 0, 1, ... in the order of their names, where there are several and
    all images lie in them. A rotation that a camera wrote beside an image is not applied.

    path: the folder
    batch_size: training data per iteration
    size: null leaves images as they are; S means [S, S]; [H, W] crops around the centre to this ratio, then resizes
    grey: one channel, not three
    num_valid, num_test: held-out images; the rest is for training
    split_seed: seed of the split and of what is drawn once
    binarization: dynamic, static, threshold or none
    dequantize: with binarization=none: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]
    workers: threads that decode
    cache_mb: images that need no more memory than this are decoded once; others each time they are asked for

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        path: str | None = None,
        batch_size: int = 100,
        size: int | Sequence[int] | None = None,
        grey: bool = False,
        num_valid: int = 200,
        num_test: int = 200,
        split_seed: int = 0,
        binarization: Binarization = "none",
        dequantize: bool = False,
        workers: int = 4,
        cache_mb: int = 2000,
    ) -> None:
        require_at_least(1, batch_size=batch_size, num_valid=num_valid, num_test=num_test, workers=workers)
        require_at_least(0, split_seed=split_seed, cache_mb=cache_mb)
        require_binarization(binarization, dequantize=dequantize)
        self.size = None if size is None else (size, size) if isinstance(size, int) else tuple(size)
        if self.size is not None and (len(self.size) != 2 or not all(1 <= side <= 2**15 for side in self.size)):
            raise ValueError(f"size={size}: must be null, S or [H,W], each side between 1 and {2**15} pixels")
        self.path = path
        self.batch_size = batch_size
        self.grey = grey
        self.num_valid = num_valid
        self.num_test = num_test
        self.split_seed = split_seed
        self.binarization: Binarization = binarization
        self.dequantize = dequantize
        self.workers = workers
        self.cache_mb = cache_mb

    def load(self) -> Dataset:
        """The three splits.

        Raises ConfigError naming the image that is damaged, too large or of another size than the first, where there
        are none, and where images that are drawn once do not fit into memory.
        """
        folder, names = self._find()
        labels, classes = folder_labels(names)
        parts = seeded_split(len(names), self.num_valid, self.num_test, self.split_seed)
        splits: list[Split] = []
        try:
            shape = self._event_shape(folder, names)
            for part, in_memory in zip(parts, self._in_memory(len(names), shape), strict=True):
                paths = [folder / names[i] for i in part.tolist()]
                lazy = LazyImages(paths, shape, self.workers)
                values = decode_all(paths, shape, self.workers) if in_memory else cast(Tensor, lazy)
                splits.append(Split(values, None if labels is None else labels[part]))
        except ImageFileError as error:
            raise ConfigError(f"dataset.path={self.path}: {error}") from error
        train, valid, test = splits
        name = folder.resolve().name
        told = f"labels {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}" if classes else "no labels"
        read = "in memory" if isinstance(train.values, Tensor) else "decoded each time they are asked for"
        log.info("%s: %d images, each %s, %s; training images %s", name, len(names), shape, told, read)
        return binarized_dataset(
            name, train, valid, test, self.binarization, self.split_seed, dequantize=self.dequantize
        )

    def _find(self) -> tuple[Path, list[str]]:
        """The folder and the relative paths of its images."""
        if self.path is None:
            raise ConfigError("dataset.path=null: name the folder of your images, as in dataset.path=images/")
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            reason = "is no folder" if folder.exists() else "no such folder"
            raise ConfigError(f"dataset.path={self.path}: {reason}; name the folder that holds the images")
        try:
            names = find_images(folder)
        except OSError as error:
            raise ConfigError(
                f"dataset.path={self.path}: {error.filename} cannot be read ({error.strerror}); make it readable"
            ) from error
        if not names:
            raise ConfigError(f"dataset.path={self.path}: no image below; images are files with {', '.join(SUFFIXES)}")
        return folder, names

    def _event_shape(self, folder: Path, names: Sequence[str]) -> tuple[int, int, int]:
        """(C, H, W) of all images. The header of every one is read: a run is not to end on a bad one hours later."""
        sizes = [header(folder / name) for name in names]
        height, width = self.size or sizes[0]
        for name, size in zip(names, sizes, strict=True):
            if self.size is None and size != sizes[0]:
                raise ImageFileError(
                    f"{folder / name} has {size[0]}x{size[1]} pixels, {folder / names[0]} {height}x{width}; set "
                    f"dataset.size=[{height},{width}] or another size"
                )
        return (1 if self.grey else 3), height, width

    def _in_memory(self, count: int, shape: Sequence[int]) -> tuple[bool, bool, bool]:
        """Whether to decode train, valid and test once.

        Raises ConfigError where they must be in memory, since they are drawn once, and are too large for it.
        """
        size = math.prod(shape) / MEGABYTE
        if count * size <= self.cache_mb:
            return True, True, True
        limit = f"dataset.cache_mb={self.cache_mb}"
        if self.binarization in ("static", "threshold"):
            raise ConfigError(
                f"{limit}: {self.binarization} pixels are made once and need {math.ceil(count * size)} MB; raise it, "
                "or set dataset.binarization=dynamic or a smaller dataset.size"
            )
        # Dequantized images are floats.
        held_out = (self.num_valid + self.num_test) * size * (4 if self.dequantize else 1)
        fits = held_out <= self.cache_mb
        if not fits and (self.dequantize or self.binarization == "dynamic"):
            raise ConfigError(
                f"{limit}: validation and test images are drawn once and need {math.ceil(held_out)} MB; lower "
                f"dataset.num_valid={self.num_valid} and dataset.num_test={self.num_test}, or raise it"
            )
        return False, fits, fits


def folder_labels(names: Sequence[str]) -> tuple[Tensor | None, list[str]]:
    """Labels (N,) int64 and their names: the first folders of relative paths; none where they tell nothing."""
    firsts = [name.partition("/")[0] if "/" in name else "" for name in names]
    classes = sorted(set(firsts))
    if len(classes) < 2 or "" in classes:
        return None, []
    number = {name: label for label, name in enumerate(classes)}
    return torch.tensor([number[name] for name in firsts]), classes
