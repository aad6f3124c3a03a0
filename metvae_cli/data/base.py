"""The contract of a data set: three in-memory splits, what a datum may be, and how a batch is made.

A data set is a small class with typed constructor arguments (the keys of its YAML file) and one method,
`load() -> Dataset`. Everything after it sees only `Dataset`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from metvae_cli.data.grey_levels import as_float, dequantized, drawn_pixels

Support = Literal["binary", "levels", "unit", "real", "counts"]
Binarization = Literal["dynamic", "static", "threshold", "none"]


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    values: (N, *event), uint8 grey levels 0..255 (already binarized data: 0 or 255 only) or float32; or `LazyValues`,
        which are used like a tensor
    labels: (N,) int64, or None where the data have none
    """

    values: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test splits on one device.

    support: what a batch holds: "binary" {0, 1}, "levels" k / 255 for k in 0..255, "unit" [0, 1], "real", or "counts"
        0, 1, 2, ...
    redraw: grey values are probabilities, drawn afresh for every training batch (dynamic binarization)
    dequantize: grey levels k become (k + u) / 256 with u uniform in [0, 1), drawn afresh for every training batch
    exact_log_likelihood: log p(x) in nats, (B, *event) -> (B,), under the process that made the data, where
        that is known
    """

    name: str
    train: Split
    valid: Split
    test: Split
    support: Support
    redraw: bool = False
    dequantize: bool = False
    exact_log_likelihood: Callable[[Tensor], Tensor] | None = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return tuple(self.train.values.shape[1:])

    def batch(self, index: Tensor) -> Tensor:
        """Training batch x, shape (B, *event), float32: one gather and, if asked, one random draw."""
        values = _gathered(self.train.values, index)
        if self.dequantize:
            return dequantized(values)
        return drawn_pixels(values) if self.redraw else as_float(values)

    def held_out(self, split: Split, index: Tensor) -> Tensor:
        """Data of `split` at `index` exactly as stored, shape (B, *event), float32: never redrawn."""
        return as_float(split.values[index])

    def fingerprint(self) -> str:
        """SHA-256 of all three splits as stored; of values that are read when asked for, of some of them."""
        digest = hashlib.sha256()
        for split in (self.train, self.valid, self.test):
            _add_values(digest, split)
        return digest.hexdigest()

    def to(self, device: torch.device) -> "Dataset":
        """The same data set with its tensors on `device`."""

        def move(split: Split) -> Split:
            labels = None if split.labels is None else split.labels.to(device)
            return Split(split.values.to(device), labels)

        return replace(self, train=move(self.train), valid=move(self.valid), test=move(self.test))


class LazyValues(Protocol):
    """What stands for the values of a data set that does not fit into memory: they are read when they are asked for."""

    @property
    def shape(self) -> torch.Size:
        """(N, *event)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where they are given, and where an index is expected."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Data at an index (B,), uint8 or float32, (B, *event)."""
        ...

    def to(self, device: torch.device) -> "LazyValues":
        """The same values, given on a device."""
        ...


class DatasetSource(Protocol):
    """What a dataset YAML file names in `_target_`."""

    batch_size: int

    def load(self) -> Dataset:
        """Read the data. Raises ConfigError (missing or damaged files, no network) with the remedy."""
        ...


def _gathered(values: Tensor, index: Tensor) -> Tensor:
    if not isinstance(values, Tensor):
        return values[index]  # LazyValues
    return values.index_select(0, index.to(values.device))  # several times as fast as values[index]


def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """Order of the training data in one epoch, a function of (seed, epoch) alone: a resume needs no state."""
    # The modulus only keeps very large seeds inside what manual_seed accepts.
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(size, generator=generator)


def split_fingerprint(split: Split) -> str:
    """SHA-256 of one split as stored, binarized or dequantized as it is; of values read when asked for, of some."""
    digest = hashlib.sha256()
    _add_values(digest, split)
    return digest.hexdigest()


def _add_values(digest: "hashlib._Hash", split: Split) -> None:
    values = split.values if isinstance(split.values, Tensor) else split.values[spread_over(len(split), 8)]
    digest.update(f"{tuple(split.values.shape)} {values.dtype}".encode())
    digest.update(values.cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def spread_over(size: int, count: int) -> Tensor:
    """At most `count` places, evenly over a split of `size` data: it may be sorted by class."""
    return torch.arange(size) if size <= count else torch.arange(count) * (size - 1) // max(count - 1, 1)


def require_at_least(minimum: int, **arguments: int) -> None:
    """Raise ValueError naming the first argument that is not a whole number of at least `minimum`."""
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name}={value!r}: must be a whole number, at least {minimum}")
        if value < minimum:
            raise ValueError(f"{name}={value}: must be at least {minimum}")
