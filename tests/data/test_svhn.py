"""SVHN on small MATLAB files in the published form."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metvae_cli.data import svhn
from metvae_cli.data.svhn import SVHN, TEST, TRAIN
from tests.data.official_files import flipped, load_error, mat, md5, no_network, serve, write_files

PIXELS = np.random.default_rng(0).integers(0, 256, (17, 3, 32, 32), dtype=np.uint8)
DIGITS = np.array([*range(1, 11), 10, 5, 1, 10, 2, 3, 9], dtype=np.uint8)


def part(start: int, end: int) -> dict[str, np.ndarray]:
    return {"X": PIXELS[start:end].transpose(2, 3, 1, 0), "y": DIGITS[start:end, None]}


FILES = {TRAIN: mat(part(0, 12)), TEST: mat(part(12, 17))}


def expect(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    monkeypatch.setattr(svhn, "EXPECTED_MD5", {name: md5(content) for name, content in files.items()})
    monkeypatch.setattr(svhn, "COUNTS", {TRAIN: 12, TEST: 5})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, FILES)


@pytest.mark.parametrize("layout", ["SVHN", "."])
def test_values_labels_and_splits(tmp_path: Path, layout: str) -> None:
    write_files(tmp_path / layout, FILES)
    dataset = SVHN(root=str(tmp_path), download=False, num_valid=4).load()
    assert dataset.event_shape == (3, 32, 32)
    official = torch.cat([dataset.train.values, dataset.valid.values])
    assert np.array_equal(official.numpy(), PIXELS[:12])
    assert np.array_equal(dataset.test.values.numpy(), PIXELS[12:])
    assert dataset.train.labels is not None
    assert dataset.train.labels.tolist() == list(range(1, 9))
    assert dataset.valid.labels is not None
    assert dataset.valid.labels.tolist() == [9, 0, 0, 5]
    assert dataset.test.labels is not None
    assert dataset.test.labels.tolist() == [1, 0, 2, 3, 9]


@pytest.mark.parametrize("name", [TRAIN, TEST])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "longer"])
def test_damaged_file_is_refused(tmp_path: Path, name: str, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = FILES[name]
    damaged = {"truncated": good[:-9], "flipped": flipped(good), "longer": good + b"\0"}[damage]
    write_files(tmp_path, FILES | {name: damaged})
    source = SVHN(root=str(tmp_path), num_valid=4)
    message = load_error(source)
    assert f"{tmp_path / name} is damaged (expected MD5 {md5(good)}, found {md5(damaged)}); delete it" in message
    expect(monkeypatch, FILES | {name: damaged})
    assert f"{tmp_path / name} " in load_error(source), "damage behind a right hash was not seen"


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        (part(0, 11), "expected 'X' of 32x32x3x12 numbers, found 32x32x3x11 uint8"),
        ({"X": part(0, 12)["X"]}, "expected an array 'y', found X"),
        (part(0, 12) | {"y": DIGITS[:11, None]}, "expected 'y' of 12x1 numbers, found 11x1 uint8"),
        (part(0, 12) | {"y": np.zeros((12, 1))}, "expected labels 1 to 10, found 0 to 0"),
        (part(0, 12) | {"X": part(0, 12)["X"].astype(float)}, "expected 'X' in bytes, found float64"),
        (part(0, 12) | {"y": np.full((12, 1), "a", dtype=object)}, "expected 'y' of 12x1 numbers, found 12x1 cell"),
    ],
)
def test_wrong_content_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FILES | {TRAIN: mat(arrays)}
    expect(monkeypatch, files)
    write_files(tmp_path, files)
    message = load_error(SVHN(root=str(tmp_path), num_valid=4))
    assert str(tmp_path / TRAIN) in message
    assert found in message


def test_no_matlab_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FILES | {TRAIN: b"this is no MATLAB file" * 20}
    expect(monkeypatch, files)
    write_files(tmp_path, files)
    assert f"{tmp_path / TRAIN} is damaged (expected a MATLAB 5 file, found another format)" in load_error(
        SVHN(root=str(tmp_path))
    )


def test_missing_file_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {TRAIN: FILES[TRAIN]})
    message = load_error(SVHN(root=str(tmp_path), download=False))
    assert f": {TEST} not found in {tmp_path}; set dataset.download=true, or point" in message
    no_network(monkeypatch)
    message = load_error(SVHN(root=str(tmp_path)))
    assert "SVHN could not be downloaded (" in message
    assert "Temporary failure in name resolution" in message
    assert [path.name for path in tmp_path.iterdir()] == [TRAIN]


def test_download_fetches_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, FILES)
    write_files(tmp_path, {TRAIN: FILES[TRAIN]})
    assert len(SVHN(root=str(tmp_path), num_valid=4).load().train) == 8
    assert asked == ["http://ufldl.stanford.edu/housenumbers/test_32x32.mat"]
