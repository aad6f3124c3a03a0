"""The user's own arrays: shape, range and splits are found out and told in one line of the log."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from metvae_cli.data.array_files import ONLY, ArrayFileError, read_arrays
from metvae_cli.data.base import Binarization, Dataset, Split, Support, require_at_least
from metvae_cli.data.binarization import binarized_dataset, require_binarization
from metvae_cli.data.splits import seeded_split
from metvae_cli.data.value_kinds import Standardization, ValueKind, find_support, misfit, stored, value_range
from metvae_cli.errors import ConfigError

log = logging.getLogger(__name__)

PARTS = ("train", "valid", "test")
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Part:
    """One part of the data as the file has it, (N, *event), and its labels (N,) int64 where there are any."""

    values: Tensor
    labels: Tensor | None

    def at(self, index: Tensor) -> "Part":
        """Only the data at an index."""
        return Part(self.values[index], None if self.labels is None else self.labels[index])


class ArrayData:
    """Arrays of a .npy, .npz or .pt file, with splits of their own or split by a seed.

    A file holds one array, or some of the keys train, valid and test, and labels as train_labels or y_train (valid,
    test alike; labels or y for a single array). What is missing of valid and test is taken from train. (N, H, W)
    becomes (N, 1, H, W), (N, H, W, C) with C = 1 or 3 becomes (N, C, H, W), and (N,) becomes (N, 1).

    path: the file
    batch_size: training data per iteration
    values: binary, levels (grey, 0..255), unit ([0, 1]), real or counts; auto finds out
    binarization: of grey levels: dynamic, static, threshold or none
    dequantize: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]
    standardize: real values minus the mean of the training data, divided by their standard deviation: each value of a
        vector by itself, images channel by channel
    num_valid, num_test: held-out data where the file has none
    split_seed: seed of the split and of what is drawn once

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        path: str | None = None,
        batch_size: int = 100,
        values: ValueKind = "auto",
        binarization: Binarization = "none",
        dequantize: bool = False,
        standardize: bool = False,
        num_valid: int = 200,
        num_test: int = 200,
        split_seed: int = 0,
    ) -> None:
        require_at_least(1, batch_size=batch_size, num_valid=num_valid, num_test=num_test)
        require_at_least(0, split_seed=split_seed)
        require_binarization(binarization, dequantize=dequantize)
        self.path = path
        self.batch_size = batch_size
        self.values: ValueKind = values
        self.binarization: Binarization = binarization
        self.dequantize = dequantize
        self.standardize = standardize
        self.num_valid = num_valid
        self.num_test = num_test
        self.split_seed = split_seed

    def load(self) -> Dataset:
        """The three splits.

        Raises ConfigError where the file is missing, damaged or holds no such data, or a key does not fit it.
        """
        if self.path is None:
            raise ConfigError("dataset.path=null: name your file, as in dataset.path=images.npy (or .npz, .pt)")
        path = Path(self.path).expanduser()
        try:
            parts = self._split(named_parts(read_arrays(path)))
        except ArrayFileError as error:
            raise ConfigError(f"dataset.path={self.path}: {error}") from error
        arrays = [part.values for part in parts]
        support = self._support(arrays)
        shape, (low, high) = tuple(arrays[0].shape[1:]), value_range(arrays)
        sizes = ", ".join(f"{name} {len(array)}" for name, array in zip(PARTS, arrays, strict=True))
        kind = str(arrays[0].dtype).removeprefix("torch.")
        told = f"{path.name}: {sizes}; each {shape}, {kind} in {low:.6g}..{high:.6g}: {support} values"
        if self.standardize:
            arrays, how = self._standardized(arrays)
            told += f", {how}"
        splits = [Split(stored(a, support), part.labels) for a, part in zip(arrays, parts, strict=True)]
        if not all(split.values.isfinite().all() for split in splits):
            raise ConfigError(f"dataset.path={self.path}: {high:.6g} is too large for float32; rescale the data")
        log.info("%s", told)
        train, valid, test = splits
        if support != "levels":
            return Dataset(path.stem, train, valid, test, support)
        return binarized_dataset(
            path.stem, train, valid, test, self.binarization, self.split_seed, dequantize=self.dequantize
        )

    def _split(self, given: Mapping[str, Part]) -> list[Part]:
        """Train, valid and test; those that are not given are taken from train."""
        asked = {"valid": self.num_valid, "test": self.num_test}
        missing = {name: 0 if name in given else number for name, number in asked.items()}
        if not any(missing.values()):
            return [given[name] for name in PARTS]
        whole = given["train"]
        train, valid, test = seeded_split(len(whole.values), missing["valid"], missing["test"], self.split_seed)
        taken = {"valid": whole.at(valid), "test": whole.at(test)}
        return [whole.at(train), *(given[name] if name in given else taken[name] for name in PARTS[1:])]

    def _support(self, arrays: list[Tensor]) -> Support:
        """What the values are. Raises ConfigError where `values` or another key does not fit them."""
        if self.values == "auto":
            support = find_support(arrays)
        elif reason := misfit(arrays, self.values):
            raise ConfigError(f"dataset.values={self.values}: they {reason} in {self.path}; set dataset.values=auto")
        else:
            support = self.values
        remedy = f"the values of {self.path} are {support}"
        if self.binarization != "none" and support not in ("levels", "binary"):
            raise ConfigError(
                f"dataset.binarization={self.binarization}: {remedy}, no grey levels; set dataset.binarization=none, "
                "or save grey levels 0..255 as uint8"
            )
        if self.dequantize and support != "levels":
            raise ConfigError(f"dataset.dequantize=true: {remedy}, no grey levels; set dataset.dequantize=false")
        if self.standardize and support != "real":
            raise ConfigError(
                f"dataset.standardize=true: {remedy}; set dataset.values=real to standardize them all the same"
            )
        return support

    def _standardized(self, arrays: list[Tensor]) -> tuple[list[Tensor], str]:
        """Standardized arrays, and how in words."""
        try:
            how = Standardization.of(arrays[0])
        except ValueError as error:
            raise ConfigError(f"dataset.path={self.path}: the values are {error}; rescale them") from error
        return [how.apply(array) for array in arrays], how.told()


def named_parts(arrays: Mapping[str, Tensor]) -> dict[str, Part]:
    """Parts of the data with their labels by name, of equal event shape; a single array is called train.

    Raises ArrayFileError for unknown or missing names, and for what does not fit together.
    """
    labels = {name: (f"{name}_labels", f"y_{name}") for name in PARTS}
    rest = [name for name in arrays if name not in ("labels", "y")]
    known = {*PARTS, *(name for pair in labels.values() for name in pair)}
    if "train" not in arrays and len(rest) == 1 and (rest[0] == ONLY or rest[0] not in known):
        arrays = {"train" if name == rest[0] else "train_labels": array for name, array in arrays.items()}
    if "train" not in arrays or not arrays.keys() <= known:
        raise ArrayFileError(
            f"holds the keys {', '.join(arrays) or 'none'}; it must be one array, or the keys train, valid and test "
            "(the last two may be missing), with labels as train_labels or y_train, and so on"
        )
    found: dict[str, Part] = {}
    for name in PARTS:
        own = [arrays[label] for label in labels[name] if label in arrays]
        if name in arrays:
            values = channels_first(arrays[name], name)
            found[name] = Part(values, _labels(own[0], len(values), name) if own else None)
        elif own:
            raise ArrayFileError(f"holds labels of {name} and no {name}; save both, or neither")
    first = found["train"].values
    for name, part in found.items():
        if part.values.shape[1:] != first.shape[1:] or part.values.dtype != first.dtype:
            raise ArrayFileError(
                f"{name} is {tuple(part.values.shape)} {part.values.dtype}, train is {tuple(first.shape)} "
                f"{first.dtype}; save all with data of one shape and type"
            )
    return found


def channels_first(values: Tensor, name: str) -> Tensor:
    """(N, D) or (N, C, H, W) from what users have. Raises ArrayFileError for more dimensions."""
    if values.dim() > 4:
        raise ArrayFileError(
            f"{name} has the shape {tuple(values.shape)}; reshape it to (N, D), (N, H, W) or (N, C, H, W)"
        )
    if values.dim() == 4 and values.shape[1] not in CHANNELS and values.shape[3] in CHANNELS:
        return values.permute(0, 3, 1, 2).contiguous()
    return values.unsqueeze(1) if values.dim() in (1, 3) else values


def _labels(labels: Tensor, count: int, name: str) -> Tensor:
    """(N,) int64. Raises ArrayFileError where they are not one integer per datum."""
    if labels.is_floating_point() or labels.shape != (count,):
        raise ArrayFileError(
            f"the labels of {name} are {tuple(labels.shape)} {labels.dtype}; save one integer for each of its {count} "
            "data"
        )
    return labels.long()
