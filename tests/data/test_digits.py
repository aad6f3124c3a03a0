"""The scikit-learn digits: values, splits and their seed."""

from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from sklearn.datasets import load_digits

from metvae_cli.data import digits
from metvae_cli.data.base import Dataset
from metvae_cli.data.digits import Digits
from metvae_cli.errors import ConfigError


def all_images(dataset: Dataset) -> torch.Tensor:
    return torch.cat([split.values for split in (dataset.train, dataset.valid, dataset.test)])


def test_sizes_shapes_and_types() -> None:
    dataset = Digits().load()
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (1297, 200, 300)
    assert dataset.event_shape == (1, 8, 8)
    assert dataset.train.values.dtype == torch.uint8
    assert dataset.train.labels is not None
    assert dataset.train.labels.dtype == torch.int64


def test_the_three_splits_are_the_whole_data_set_once() -> None:
    # As multisets of (image, label): every original digit is in exactly one split, as often as in the source.
    dataset = Digits(binarization="none").load()
    labels = [split.labels for split in (dataset.train, dataset.valid, dataset.test)]
    label_column = torch.cat([part for part in labels if part is not None]).reshape(-1, 1)
    found = torch.cat([all_images(dataset).flatten(1).long(), label_column], dim=1)
    ink, digit = load_digits(return_X_y=True)
    expected = [[round(value * 255 / 16) for value in row] for row in ink.tolist()]
    assert sorted(found.tolist()) == sorted([*row, label] for row, label in zip(expected, digit, strict=True))


def test_split_is_fixed_by_its_seed() -> None:
    first = Digits(binarization="none").load()
    torch.manual_seed(99)
    again, other = Digits(binarization="none").load(), Digits(binarization="none", split_seed=1).load()
    assert torch.equal(all_images(first), all_images(again))
    assert not torch.equal(first.test.values, other.test.values)


def test_dynamic_batches_differ_and_held_out_data_are_the_same_in_every_load() -> None:
    dataset, again = Digits().load(), Digits().load()
    index = torch.arange(64)
    assert not torch.equal(dataset.batch(index), dataset.batch(index))
    assert torch.equal(dataset.valid.values, again.valid.values)
    assert set(dataset.valid.values.unique().tolist()) == {0, 255}


def test_held_out_parts_must_leave_training_data() -> None:
    with pytest.raises(
        ConfigError, match=r"^dataset\.num_valid=1500: .*dataset\.num_test=297.*at most 1796 can be held out$"
    ):
        Digits(num_valid=1500, num_test=297).load()
    assert len(Digits(num_valid=1500, num_test=296).load().train) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^batch_size=0: must be at least 1$"),
        ({"num_valid": 0}, r"^num_valid=0: must be at least 1$"),
        ({"num_test": -1}, r"^num_test=-1: must be at least 1$"),
        ({"split_seed": -1}, r"^split_seed=-1: must be at least 0$"),
        ({"binarization": "soft"}, r"^binarization=soft: must be one of "),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Digits(**arguments)


def test_the_file_that_is_read_is_what_scikit_learn_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ink, labels = load_digits(return_X_y=True)
    expected = np.column_stack([ink, labels])

    def noted(**options: bool) -> Any:
        asked.append("scikit-learn")
        return load_digits(**options)

    monkeypatch.setattr(sklearn.datasets, "load_digits", noted)
    assert np.array_equal(digits._table(), expected)
    assert asked == []
    monkeypatch.setattr(digits, "FILE", ("somewhere", "else.csv"))
    assert np.array_equal(digits._table(), expected)
    assert asked == ["scikit-learn"], "where the file is not, scikit-learn finds it"
