"""Binarized MNIST in its three forms, small, and the real file where METVAE_DATA names its folder."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from metvae_cli.data import binarized_mnist
from metvae_cli.data.binarized_mnist import AMAT, MAT, NPZ, BinarizedMNIST
from metvae_cli.data.grey_levels import as_float
from tests.data.official_files import amat, flipped, load_error, mat, npz, write_files, zipped

COUNTS = {"train": 6, "valid": 3, "test": 2}
RNG = np.random.default_rng(0)
PIXELS = {part: RNG.integers(0, 2, (count, 1, 28, 28), dtype=np.uint8) for part, count in COUNTS.items()}
TEXTS = {AMAT[part]: amat(pixels) for part, pixels in PIXELS.items()}
FORMS: dict[str, dict[str, bytes]] = {
    "npz": {NPZ: npz(PIXELS)},
    "mat": {MAT: mat(PIXELS)},
    "flat mat": {MAT: mat({part: pixels.reshape(-1, 784).astype(float) for part, pixels in PIXELS.items()})},
    "amat": TEXTS,
    "amat with other ends": {name: text.replace(b"\n", b" \r\n") for name, text in TEXTS.items()},
    "amat without the last end": {name: text[:-1] for name, text in TEXTS.items()},
}


@pytest.fixture(autouse=True)
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real" not in request.node.name:
        monkeypatch.setattr(binarized_mnist, "COUNTS", COUNTS)


@pytest.mark.parametrize("files", list(FORMS.values()), ids=list(FORMS))
@pytest.mark.parametrize("layout", [".", "binarized_mnist"])
def test_values_and_splits(tmp_path: Path, files: dict[str, bytes], layout: str) -> None:
    write_files(tmp_path / layout, files)
    dataset = BinarizedMNIST(root=str(tmp_path)).load()
    assert dataset.event_shape == (1, 28, 28)
    assert (dataset.support, dataset.redraw) == ("binary", False)
    for part, split in (("train", dataset.train), ("valid", dataset.valid), ("test", dataset.test)):
        assert split.values.dtype == torch.uint8
        assert split.labels is None
        assert np.array_equal(as_float(split.values).numpy(), PIXELS[part])


@pytest.mark.parametrize("form", ["npz", "mat"])
def test_root_may_be_the_file(tmp_path: Path, form: str) -> None:
    (tmp_path / f"mine.{form}").write_bytes(next(iter(FORMS[form].values())))
    assert len(BinarizedMNIST(root=str(tmp_path / f"mine.{form}")).load().train) == 6


def test_nothing_there_and_wrong_file(tmp_path: Path) -> None:
    source = BinarizedMNIST(root=str(tmp_path))
    assert f"none of {NPZ}, {MAT} and the three files {AMAT['train']}, " in load_error(source)
    write_files(tmp_path, {AMAT["train"]: TEXTS[AMAT["train"]]})
    assert f"found in {tmp_path}; point dataset.root= at" in load_error(source)
    message = load_error(BinarizedMNIST(root=str(tmp_path / AMAT["train"])))
    assert "must be a folder, or a file that ends in .npz or .mat" in message


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"valid": PIXELS["train"]}, "valid.npy is damaged (expected (3, 1, 28, 28) uint8, found (6, 1, 28, 28) uint8"),
        ({"test": PIXELS["test"].astype("i8")}, "test.npy is damaged (expected at most 5664 bytes, found 12672)"),
        ({"test": PIXELS["test"].astype("i1")}, "test.npy is damaged (expected (2, 1, 28, 28) uint8, found (2, 1, 28"),
        ({"test": PIXELS["test"].reshape(2, 784)}, "expected (2, 1, 28, 28) uint8, found (2, 784) uint8"),
        ({"test": PIXELS["test"] * 2}, "is damaged (expected pixels 0 and 1 in 'test', found others)"),
        ({"test": np.array({}, dtype=object)}, "test.npy "),
    ],
)
def test_wrong_npz(tmp_path: Path, change: dict[str, np.ndarray], found: str) -> None:
    arrays = PIXELS | change
    if arrays["test"].dtype == object:
        with (tmp_path / NPZ).open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    else:
        write_files(tmp_path, {NPZ: npz(arrays)})
    message = load_error(BinarizedMNIST(root=str(tmp_path)))
    assert str(tmp_path / NPZ) in message
    assert found in message


def header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header("(100000000000, 1, 28, 28)"),
        header("(6, 1, 28, 28)") + bytes(6 * 784 - 1),
        header("(6, 1, 28, 28)") + bytes(6 * 784 + 1),
        header("__import__('os')"),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_members_are_judged_by_their_header(tmp_path: Path, content: bytes) -> None:
    write_files(tmp_path, {NPZ: zipped({"train.npy": content})})
    assert f"{tmp_path / NPZ}:train.npy " in load_error(BinarizedMNIST(root=str(tmp_path)))


def test_missing_member(tmp_path: Path) -> None:
    write_files(tmp_path, {NPZ: npz({"train": PIXELS["train"]})})
    assert f"{tmp_path / NPZ} holds no valid.npy; delete it" in load_error(BinarizedMNIST(root=str(tmp_path)))


@pytest.mark.parametrize("form", ["npz", "mat"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "rubbish"])
def test_damaged_file_is_refused(tmp_path: Path, form: str, damage: str) -> None:
    name, good = next(iter(FORMS[form].items()))
    damaged = {"truncated": good[:-40], "flipped": flipped(good), "empty": b"", "rubbish": b"rubbish" * 99}[damage]
    write_files(tmp_path, {name: damaged})
    message = load_error(BinarizedMNIST(root=str(tmp_path)))
    assert str(tmp_path / name) in message
    assert "delete it and get it again" in message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (amat(PIXELS["test"][:1]), "expected 2 lines, found 1"),
        (amat(PIXELS["train"][:2]) + b"0\n", "expected 2 lines, found 3"),
        (amat(PIXELS["train"]), "expected at most 3140 bytes, found 9408"),
        (amat(PIXELS["test"])[:-3], "expected 784 pixels of 0 or 1 in line 2, found 1565 characters"),
        (amat(PIXELS["test"]).replace(b"1", b"2", 1), "expected 784 pixels of 0 or 1 in line 1, found another char"),
        (amat(PIXELS["test"])[:1570] + b"x" + amat(PIXELS["test"])[1571:], "0 or 1 in line 2, found another char"),
        (amat(PIXELS["test"]).replace(b" ", b",", 1), "expected 784 pixels of 0 or 1 in line 1, found another char"),
        (b"", "expected 2 lines, found 0"),
    ],
)
def test_wrong_text(tmp_path: Path, text: bytes, found: str) -> None:
    write_files(tmp_path, TEXTS | {AMAT["test"]: text})
    message = load_error(BinarizedMNIST(root=str(tmp_path)))
    assert f"{tmp_path / AMAT['test']} is damaged (" in message
    assert found in message


@pytest.mark.skipif(
    not (Path(os.environ.get("METVAE_DATA", "")) / NPZ).is_file() or "METVAE_DATA" not in os.environ,
    reason="METVAE_DATA does not name a folder with the real binarized MNIST",
)
def test_real_binarized_mnist() -> None:
    dataset = BinarizedMNIST(root=os.environ["METVAE_DATA"]).load()
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (50_000, 10_000, 10_000)
    # MNIST's mean pixel is 0.1307, and each pixel here is a draw with its grey value as the probability.
    assert as_float(dataset.train.values).mean().item() == pytest.approx(0.1307, abs=5e-4)
