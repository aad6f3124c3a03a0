"""Grey levels to {0, 1}: exact values, the right probabilities, and what is fixed by the seed."""

import math

import pytest
import torch
from torch import Tensor

from metvae_cli.data.base import Binarization, Dataset, Split
from metvae_cli.data.binarization import binarized_dataset, require_binarization, settled
from metvae_cli.data.grey_levels import as_float

LEVELS = torch.tensor([0, 127, 128, 255], dtype=torch.uint8)


def grey_split(size: int) -> Split:
    generator = torch.Generator().manual_seed(size)
    values = torch.randint(0, 256, (size, 1, 6, 6), dtype=torch.uint8, generator=generator)
    return Split(values, torch.arange(size))


def make_dataset(binarization: Binarization, seed: int = 0) -> Dataset:
    return binarized_dataset("grey", grey_split(30), grey_split(20), grey_split(10), binarization, seed)


def held_out(dataset: Dataset, split: Split) -> Tensor:
    return dataset.held_out(split, torch.arange(len(split)))


def test_threshold_is_one_from_one_half_up() -> None:
    split = Split(LEVELS.reshape(4, 1))
    dataset = binarized_dataset("levels", split, split, split, "threshold", seed=0)
    for part in (dataset.train, dataset.valid, dataset.test):
        assert held_out(dataset, part).flatten().tolist() == [0.0, 0.0, 1.0, 1.0]
    assert (dataset.support, dataset.redraw) == ("binary", False)


def test_none_keeps_grey_levels() -> None:
    dataset = make_dataset("none")
    assert (dataset.support, dataset.redraw) == ("levels", False)
    assert torch.equal(dataset.valid.values, grey_split(20).values)
    assert torch.equal(held_out(dataset, dataset.valid), grey_split(20).values / 255)


def test_dynamic_keeps_grey_training_data_and_draws_the_rest_once() -> None:
    dataset = make_dataset("dynamic")
    assert (dataset.support, dataset.redraw) == ("binary", True)
    assert torch.equal(dataset.train.values, grey_split(30).values)
    index = torch.arange(30)
    assert not torch.equal(dataset.batch(index), dataset.batch(index))
    for split in (dataset.valid, dataset.test):
        assert set(held_out(dataset, split).unique().tolist()) == {0.0, 1.0}
        assert torch.equal(held_out(dataset, split), held_out(dataset, split))


def test_static_draws_everything_once() -> None:
    dataset = make_dataset("static")
    assert (dataset.support, dataset.redraw) == ("binary", False)
    index = torch.arange(30)
    assert torch.equal(dataset.batch(index), dataset.batch(index))
    assert set(dataset.batch(index).unique().tolist()) == {0.0, 1.0}


def test_draws_depend_on_the_seed_alone_and_are_shared_by_dynamic_and_static() -> None:
    static = make_dataset("static")
    torch.manual_seed(1234)
    dynamic = make_dataset("dynamic")
    assert torch.equal(static.valid.values, dynamic.valid.values)
    assert torch.equal(static.test.values, dynamic.test.values)
    assert not torch.equal(static.valid.values, make_dataset("static", seed=1).valid.values)


def test_settled_training_data_are_as_held_out_data_are() -> None:
    grey = torch.randint(0, 256, (200, 3, 3), dtype=torch.uint8)
    parts = (Split(grey), Split(grey[:2]), Split(grey[:2]))
    drawn = settled(binarized_dataset("x", *parts, "dynamic", seed=0))
    assert set(drawn.values.unique().tolist()) == {0, 255}
    assert abs(drawn.values.double().mean() - grey.double().mean()) < 10
    noisy = settled(binarized_dataset("x", *parts, "none", seed=0, dequantize=True))
    assert torch.equal((noisy.values * 256).floor(), grey.float())
    assert ((noisy.values * 256) % 1 > 0).any()
    assert settled(binarized_dataset("x", *parts, "threshold", seed=0)).values.unique().tolist() == [0, 255]


def test_splits_with_the_same_grey_values_get_different_draws() -> None:
    grey = grey_split(20)
    dataset = binarized_dataset("grey", grey, grey, grey, "static", seed=0)
    assert not torch.equal(dataset.train.values, dataset.valid.values)
    assert not torch.equal(dataset.valid.values, dataset.test.values)


def test_drawn_pixels_are_one_with_probability_grey() -> None:
    count = 40_000
    split = Split(LEVELS.repeat(count, 1))
    dataset = binarized_dataset("levels", split, split, split, "static", seed=0)
    frequency = as_float(dataset.valid.values).mean(0)
    assert frequency[[0, 3]].tolist() == [0.0, 1.0], "black and white pixels are certain"
    tolerance = 5 * math.sqrt(0.25 / count)
    assert torch.allclose(frequency, LEVELS / 255, rtol=0, atol=tolerance)


@pytest.mark.parametrize("binarization", ["dynamic", "static", "threshold", "none"])
def test_labels_are_kept(binarization: Binarization) -> None:
    dataset = make_dataset(binarization)
    for split in (dataset.train, dataset.valid, dataset.test):
        assert split.labels is not None
        assert torch.equal(split.labels, torch.arange(len(split)))


def test_unknown_binarization_is_refused() -> None:
    message = r"^binarization=random: must be one of dynamic, static, threshold, none$"
    with pytest.raises(ValueError, match=message):
        require_binarization("random")
