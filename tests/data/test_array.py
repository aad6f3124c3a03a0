"""The user's arrays: what is found out about them, how they are split, and one line for everything that is wrong."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metvae_cli.data.array import ArrayData
from metvae_cli.errors import ConfigError
from tests.data.arrays import GREY, RNG, load, refused


@pytest.mark.parametrize(
    ("shape", "event"),
    [
        ((30, 7), (7,)),
        ((30,), (1,)),
        ((30, 4, 5), (1, 4, 5)),
        ((30, 4, 5, 3), (3, 4, 5)),
        ((30, 4, 5, 1), (1, 4, 5)),
        ((30, 3, 4, 5), (3, 4, 5)),
        ((30, 1, 4, 3), (1, 4, 3)),
        ((30, 2, 4, 5), (2, 4, 5)),
    ],
)
def test_shapes(tmp_path: Path, shape: tuple[int, ...], event: tuple[int, ...]) -> None:
    assert load(tmp_path, RNG.normal(size=shape)).event_shape == event


def test_channels_last_images_are_the_same_images(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (10, 4, 5, 3), dtype=np.uint8)
    dataset = load(tmp_path, {"train": images, "valid": images, "test": images})
    assert np.array_equal(dataset.train.values.numpy(), np.moveaxis(images, 3, 1))


@pytest.mark.parametrize(
    ("values", "support", "dtype"),
    [
        (GREY // 200, "binary", torch.uint8),
        (GREY > 100, "binary", torch.uint8),
        ((GREY > 100).astype(np.float32), "binary", torch.uint8),
        ((GREY > 100).astype(np.int32), "binary", torch.uint8),
        (GREY, "levels", torch.uint8),
        ((GREY / 255).astype(np.float32), "unit", torch.float32),
        (GREY / 255, "unit", torch.float32),
        ((GREY / 255).astype(np.float16), "unit", torch.float32),
        (GREY.astype(np.int64), "counts", torch.float32),
        (GREY.astype(">u2"), "counts", torch.float32),
        (GREY.astype(np.int16) - 1, "real", torch.float32),
        (GREY.astype(np.float64), "real", torch.float32),
        (torch.as_tensor(GREY / 255).bfloat16(), "unit", torch.float32),
    ],
)
def test_type_and_range_decide_the_support(tmp_path: Path, values: Any, support: str, dtype: torch.dtype) -> None:
    dataset = load(tmp_path, values)
    assert dataset.support == support
    parts = [part.values for part in (dataset.train, dataset.valid, dataset.test)]
    assert {part.dtype for part in parts} == {dtype}
    if support == "binary":
        assert set(torch.cat(parts).unique().tolist()) == {0, 255}


@pytest.mark.parametrize(
    ("content", "values", "first"),
    [
        (GREY.astype(np.float64), "levels", 255.0),
        (GREY.astype(np.float64), "counts", 1.0),
        (GREY, "counts", 1.0),
        (GREY, "real", 1.0),
        (GREY // 200, "unit", 1.0),
        (GREY // 200, "levels", 255.0),
    ],
)
def test_the_support_can_be_said(tmp_path: Path, content: Any, values: Any, first: float) -> None:
    parts = {"train": content, "valid": content, "test": content}
    dataset = load(tmp_path, parts, values=values)
    assert dataset.support == values
    x = dataset.batch(torch.arange(30))
    torch.testing.assert_close(x, torch.as_tensor(content).float()[:, None] / first)


@pytest.mark.parametrize(
    ("content", "values", "message"),
    [
        (GREY, "binary", "must be 0 or 1, found uint8 between 0 and 255"),
        (GREY, "unit", r"must lie in \[0, 1\]"),
        (GREY - 0.5, "levels", "must be whole numbers in 0..255, found float64 between -0.5 and 254.5"),
        (GREY.astype(np.int64) * 2, "levels", "between 0 and 510"),
        (GREY / 2, "counts", "must be whole, in 0..16777216"),
        (GREY.astype(np.int64) - 1, "counts", "between -1 and 254"),
        (GREY.astype(np.int64) << 20, "counts", "between 0 and 267386880"),
    ],
)
def test_what_is_said_must_be_so(tmp_path: Path, content: Any, values: Any, message: str) -> None:
    parts = {"train": content, "valid": content, "test": content}
    text = refused(tmp_path, parts, "values", values=values)
    assert text.startswith(f"dataset.values={values}: ")
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, parts, values=values)


def test_a_seeded_split_uses_each_datum_once(tmp_path: Path) -> None:
    values = np.arange(30) - 0.5
    dataset = load(tmp_path, {"anything": values, "y": np.arange(30)})
    splits = (dataset.train, dataset.valid, dataset.test)
    assert [len(split) for split in splits] == [22, 5, 3]
    assert sorted(torch.cat([split.values for split in splits]).flatten().tolist()) == values.tolist()
    for split in splits:
        assert split.labels is not None
        assert torch.equal(split.values.flatten(), split.labels - 0.5)
    assert torch.equal(dataset.test.values, load(tmp_path, {"x": values}).test.values)
    assert not torch.equal(dataset.test.values, load(tmp_path, {"x": values}, split_seed=1).test.values)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({"train": 30}, [22, 5, 3]),
        ({"train": 30, "valid": 6}, [27, 6, 3]),
        ({"train": 30, "test": 7}, [25, 5, 7]),
        ({"train": 4, "valid": 6, "test": 7}, [4, 6, 7]),
    ],
)
@pytest.mark.parametrize("tensors", [False, True])
def test_what_the_file_does_not_split_is_split(
    tmp_path: Path, given: dict[str, int], sizes: list[int], tensors: bool
) -> None:
    make: Callable[[int], Any] = torch.randn if tensors else RNG.normal
    content: dict[str, Any] = {name: make(size=(count, 3)) for name, count in given.items()}
    content["y_train"] = torch.arange(given["train"]) if tensors else np.arange(given["train"])
    dataset = load(tmp_path, content)
    assert [len(split) for split in (dataset.train, dataset.valid, dataset.test)] == sizes
    assert dataset.train.labels is not None
    assert torch.equal(torch.as_tensor(content["train"]).float()[dataset.train.labels], dataset.train.values), (
        "labels and data went apart"
    )
    assert (dataset.valid.labels is None) == ("valid" in given)


def test_labels_by_either_name(tmp_path: Path) -> None:
    for names in (("train_labels", "test_labels"), ("y_train", "y_test")):
        labels = dict(zip(names, (np.arange(30), np.arange(30, dtype=np.uint8)), strict=True))
        dataset = load(tmp_path, {"train": GREY, "test": GREY, **labels})
        assert dataset.test.labels is not None
        assert dataset.test.labels.tolist() == list(range(30))


def test_one_line_says_what_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load(tmp_path, np.full((30, 4, 5), 7, dtype=np.uint8))
    told = "mine.npy: train 22, valid 5, test 3; each (1, 4, 5), uint8 in 7..7: levels values"
    assert [record.getMessage() for record in caplog.records] == [told]


def test_grey_levels_can_be_binarized_and_dequantized(tmp_path: Path) -> None:
    dynamic = load(tmp_path, GREY, binarization="dynamic")
    assert (dynamic.support, dynamic.redraw) == ("binary", True)
    assert load(tmp_path, GREY, dequantize=True).support == "unit"
    assert load(tmp_path, GREY // 200, binarization="static").support == "binary"


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (GREY / 255, {"binarization": "dynamic"}, "are unit, no grey levels"),
        (GREY / 255, {"dequantize": True}, "are unit, no grey levels"),
        (GREY // 200, {"dequantize": True}, "are binary, no grey levels"),
        (GREY, {"standardize": True}, "are levels"),
    ],
)
def test_keys_that_do_not_fit_the_values(tmp_path: Path, content: Any, arguments: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, content, next(iter(arguments)), **arguments)


@pytest.mark.parametrize("shape", [(30, 4), (30, 2, 4, 5)])
def test_standardized_by_the_training_data(
    tmp_path: Path, shape: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    values = RNG.normal(3, 2, shape)
    values[:, 0] = 7.0
    with caplog.at_level(logging.INFO):
        dataset = load(tmp_path, values, standardize=True)
    shared = (0, *range(2, len(shape)))
    x = dataset.train.values.double()
    torch.testing.assert_close(x.mean(shared), torch.zeros(shape[1], dtype=torch.float64), atol=1e-6, rtol=0)
    expected = torch.ones(shape[1], dtype=torch.float64)
    expected[0] = 0.0
    torch.testing.assert_close(x.var(shared, correction=0), expected, atol=1e-6, rtol=1e-6)
    assert len(caplog.records) == 1
    assert "real values, standardized by (x - 7) / 1, (x - " in caplog.records[0].getMessage()


def test_many_scales_are_told_as_a_range(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load(tmp_path, RNG.normal(size=(30, 50)), standardize=True)
    assert "standardized value by value, with means in" in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([[1.0, np.nan]] * 30), r"the array holds nan at [0, 1]; replace or remove"),
        (np.array([[np.inf, 1.0]] * 30, dtype=np.float16), "holds inf at [0, 0]"),
        (np.zeros((0, 4)), "is empty: its shape is (0, 4)"),
        (np.zeros((4, 0)), "is empty: its shape is (4, 0)"),
        (np.float64(3), "is empty: its shape is ()"),
        (np.array([[1], [1, 2]], dtype=object), "holds Python objects (ragged rows?)"),
        (np.array(["a", "b"]), "has the type <U1; save bool, integers"),
        (np.zeros(3, dtype=[("a", "f4")]), "has the type"),
        (np.zeros(30, dtype=complex), "has the type complex128"),
        (np.full(30, 2**63, dtype=np.uint64), "integers must stay below 2**63"),
        (np.zeros((30, 1, 1, 1, 2)), "reshape it to (N, D), (N, H, W) or (N, C, H, W)"),
        (np.full((30, 2), 1e300), "too large for float32; rescale"),
        ({"val": GREY, "train": GREY}, "holds the keys val, train; it must be one array, or the keys train"),
        ({"valid": GREY, "test": GREY}, "holds the keys valid, test"),
        ({"valid": GREY}, "holds the keys valid; it must be one array"),
        ({}, "holds the keys none"),
        ({"train": GREY, "test": GREY[:, 1:]}, "test is (30, 1, 3, 5) torch.uint8, train is (30, 1, 4, 5)"),
        ({"train": GREY, "test": GREY / 255}, "save all with data of one shape and type"),
        ({"train": GREY, "y_train": np.arange(29)}, "the labels of train are (29,) torch.int64; save one integer"),
        ({"train": GREY, "y_train": np.arange(30.0)}, "save one integer for each of its 30 data"),
        ({"train": GREY, "y_test": np.arange(30)}, "holds labels of test and no test"),
        (torch.randn(30, 2).to_sparse(), "save a dense tensor"),
        (torch.zeros(30, dtype=torch.complex64), "save a dense tensor"),
        (torch.zeros(1).expand(30, 10**6), "more than its file holds"),
        ({"train": torch.zeros(4), "name": "mine"}, "name is a str; save a tensor"),
    ],
)
def test_content_that_is_no_data(tmp_path: Path, content: Any, message: str) -> None:
    assert message in refused(tmp_path, content)


def test_values_too_large_to_be_standardized(tmp_path: Path) -> None:
    assert "too large to be standardized" in refused(tmp_path, RNG.normal(size=(30, 2)) * 1e300, standardize=True)


def test_held_out_parts_must_leave_training_data(tmp_path: Path) -> None:
    text = refused(tmp_path, GREY, "num_valid", num_valid=20, num_test=10)
    assert text == (
        "dataset.num_valid=20: with dataset.num_test=10 nothing is left of the 30 data for training; at most 29 can be "
        "held out"
    )
    assert refused(tmp_path, {"train": GREY, "valid": GREY}, "num_test", num_test=30).startswith(
        "dataset.num_test=30: nothing is left of the 30"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^batch_size=0: must be at least 1$"),
        ({"num_valid": 0}, r"^num_valid=0: must be at least 1$"),
        ({"split_seed": -1}, r"^split_seed=-1: must be at least 0$"),
        ({"binarization": "soft"}, r"^binarization=soft: must be one of "),
        ({"binarization": "dynamic", "dequantize": True}, r"^dequantize=true: "),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArrayData(**arguments)


REAL = pytest.mark.skipif(
    "METVAE_DATA" not in os.environ,
    reason="METVAE_DATA does not name a folder with the real arrays",
)


@REAL
def test_real_binarized_mnist() -> None:
    dataset = ArrayData(path=os.path.join(os.environ["METVAE_DATA"], "binarized_mnist.npz")).load()
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (50_000, 10_000, 10_000)
    assert (dataset.event_shape, dataset.support) == ((1, 28, 28), "binary")
    # The share of ink in MNIST is about 0.13.
    assert dataset.test.values.float().mean().item() / 255 == pytest.approx(0.132, abs=0.005)


@REAL
def test_real_frey_faces() -> None:
    path = os.path.join(os.environ["METVAE_DATA"], "frey_faces.npy")
    dataset = ArrayData(path=path, values="levels").load()
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (1565, 200, 200)
    assert (dataset.event_shape, dataset.support) == ((1, 28, 20), "levels")
    assert dataset.train.values.dtype == torch.uint8
