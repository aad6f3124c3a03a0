"""What every data set shares: conversion to floats, batches, held-out data, epoch order, range checks."""

import pytest
import torch

from metvae_cli.data.base import Dataset, Split, epoch_order, require_at_least, spread_over


def make_dataset(*, redraw: bool) -> Dataset:
    grey = Split(torch.full((4, 1, 20, 20), 128, dtype=torch.uint8), torch.arange(4))
    return Dataset("grey", grey, grey, grey, support="binary", redraw=redraw)


def test_redrawn_batches_differ_and_held_out_data_do_not() -> None:
    dataset, index = make_dataset(redraw=True), torch.tensor([2, 0])
    first, second = dataset.batch(index), dataset.batch(index)
    assert first.shape == (2, 1, 20, 20)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    held_out = dataset.held_out(dataset.valid, index)
    assert held_out.dtype == torch.float32
    assert torch.equal(held_out, torch.full_like(held_out, 128 / 255))


def test_batches_without_redraw_are_the_stored_data() -> None:
    dataset, index = make_dataset(redraw=False), torch.tensor([3])
    assert torch.equal(dataset.batch(index), dataset.held_out(dataset.train, index))


def test_to_moves_values_and_labels() -> None:
    moved = make_dataset(redraw=False).to(torch.device("meta"))
    for split in (moved.train, moved.valid, moved.test):
        assert split.values.device.type == "meta"
        assert split.labels is not None
        assert split.labels.device.type == "meta"


def test_epoch_order_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    order = epoch_order(100, seed=3, epoch=5)
    assert sorted(order.tolist()) == list(range(100))
    torch.manual_seed(0)
    assert torch.equal(order, epoch_order(100, seed=3, epoch=5))
    assert not torch.equal(order, epoch_order(100, seed=3, epoch=6))
    assert not torch.equal(order, epoch_order(100, seed=4, epoch=5))


def test_epoch_order_takes_very_large_seeds() -> None:
    assert len(epoch_order(3, seed=2**63, epoch=1)) == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "size=0: must be at least 1"),
        (2.5, "size=2.5: must be a whole number"),
        (True, "size=True: must be a whole number"),
    ],
)
def test_require_at_least_names_argument_value_and_range(value: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        require_at_least(1, size=value)


@pytest.mark.parametrize(("size", "count"), [(26032, 26030), (60000, 59998), (10000, 500), (7, 1)])
def test_no_place_comes_twice(size: int, count: int) -> None:
    places = spread_over(size, count)
    assert len(places.unique()) == count
    assert 0 <= int(places.min()) <= int(places.max()) == (size - 1 if count > 1 else 0)


def test_places_are_spread_over_a_split() -> None:
    assert spread_over(3, 8).tolist() == [0, 1, 2]
    places = spread_over(1000, 5).tolist()
    assert places[0] == 0
    assert places[-1] == 999
    assert sorted(set(places)) == places
