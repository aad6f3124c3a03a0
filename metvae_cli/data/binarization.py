"""Grey images to a data set of {0, 1} pixels, in the ways the literature does it, left grey, or dequantized."""

from typing import get_args

import torch
from torch import Tensor

from metvae_cli.data.base import Binarization, Dataset, Split, Support
from metvae_cli.data.grey_levels import dequantized

# First level whose value in [0, 1] is at least one half: 127 / 255 < 0.5 < 128 / 255.
HALF_LEVEL = 128


def require_binarization(binarization: str, *, dequantize: bool = False) -> None:
    """Raise ValueError unless `binarization` is one of the known ways, and leaves grey levels to dequantize."""
    allowed = get_args(Binarization)
    if binarization not in allowed:
        raise ValueError(f"binarization={binarization}: must be one of {', '.join(allowed)}")
    if dequantize and binarization != "none":
        raise ValueError(
            f"dequantize=true: binarization={binarization} leaves no grey levels; set binarization=none or "
            "dequantize=false"
        )


def binarized_dataset(
    name: str,
    train: Split,
    valid: Split,
    test: Split,
    binarization: Binarization,
    seed: int,
    *,
    dequantize: bool = False,
) -> Dataset:
    """Data set from three splits of grey levels, each (N, *event) uint8.

    dynamic: training pixels are drawn afresh for every batch; validation and test are drawn once
    static: all three splits are drawn once
    threshold: a pixel is 1 where its grey value is at least 0.5
    none: grey levels, as values in [0, 1], support "levels"; or dequantized, support "unit": training data afresh for
        every batch, validation and test once

    What is drawn once depends on `seed` and the split alone, so dynamic and static share their held-out data.
    Binarized pixels are stored as uint8 0 and 255, a quarter of the memory of floats, which `as_float`
    turns into exactly 0 and 1.
    """
    if binarization == "none":
        if not dequantize:
            return Dataset(name, train, valid, test, support="levels")
        held_out = (_dequantize(part, seed, number) for number, part in ((1, valid), (2, test)))
        return Dataset(name, train, *held_out, support="unit", dequantize=True)
    support: Support = "binary"
    if binarization == "threshold":
        return Dataset(name, _threshold(train), _threshold(valid), _threshold(test), support)
    dynamic = binarization == "dynamic"
    return Dataset(
        name,
        train=train if dynamic else _draw(train, seed, part=0),
        valid=_draw(valid, seed, part=1),
        test=_draw(test, seed, part=2),
        support=support,
        redraw=dynamic,
    )


def _threshold(split: Split) -> Split:
    return Split(_stored(split.values >= HALF_LEVEL), split.labels)


def settled(dataset: Dataset, seed: int = 0) -> Split:
    """The training data as held-out data are: pixels or noise that training draws for each batch are drawn once."""
    if dataset.redraw:
        return _draw(dataset.train, seed, part=0)
    return _dequantize(dataset.train, seed, part=0) if dataset.dequantize else dataset.train


def _draw(split: Split, seed: int, part: int) -> Split:
    """One Bernoulli draw per pixel, with a generator of its own for each part of the data."""
    generator = torch.Generator().manual_seed((seed * 3 + part) % 2**63)
    # A uniform level in 0..254 is below grey level g with probability exactly g / 255; no floats are made.
    levels = torch.randint(0, 255, split.values.shape, dtype=torch.uint8, generator=generator)
    return Split(_stored(levels < split.values), split.labels)


def _dequantize(split: Split, seed: int, part: int) -> Split:
    """As floats, with a generator of its own for each part of the data."""
    generator = torch.Generator().manual_seed((seed * 3 + part) % 2**63)
    return Split(dequantized(split.values, generator), split.labels)


def _stored(pixels: Tensor) -> Tensor:
    """Boolean pixels as the grey levels 0 and 255."""
    return pixels.to(torch.uint8).mul_(255)
