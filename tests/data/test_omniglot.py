"""Omniglot in both published forms, small."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metvae_cli.data import matlab, omniglot
from metvae_cli.data.base import Dataset
from metvae_cli.data.omniglot import BACKGROUND, CHARDATA, EVALUATION, Omniglot, Source, area_weights
from tests.data.official_files import flipped, load_error, mat, md5, no_network, picture, serve, write_files, zipped

TRAIN, TEST = 12, 5
LEVELS = np.random.default_rng(0).integers(0, 256, (TRAIN + TEST, 28, 28), dtype=np.uint8)
ALPHABETS = [0, 0, 0, 1, 1, 7, 7, 7, 7, 49, 49, 49, 0, 3, 3, 49, 49]


def chardata(levels: np.ndarray = LEVELS) -> dict[str, np.ndarray]:
    """The arrays of chardata.mat: each column is an image, written column by column."""
    columns = levels.transpose(0, 2, 1).reshape(len(levels), 784).T / 255
    one_hot = np.eye(50)[:, ALPHABETS]
    return {
        "data": columns[:, :TRAIN],
        "testdata": columns[:, TRAIN:],
        "target": one_hot[:, :TRAIN],
        "testtarget": one_hot[:, TRAIN:],
        "targetchar": np.ones((1, TRAIN)),
    }


def drawing(number: int) -> np.ndarray:
    """Paper 105x105 with a bright ground (255) and an upright line of ink, wider for higher numbers."""
    paper = np.full((105, 105), 255, dtype=np.uint8)
    paper[:60, 30 : 31 + number] = 0
    return paper


DRAWINGS = {
    BACKGROUND: ["Latin/character01/0001_01", "Latin/character01/0001_02", "Greek/character02/0101_01"],
    EVALUATION: ["Tibetan/character01/0901_01", "Mongolian/character03/0801_20"],
}


def archive(name: str, drawings: dict[str, bytes] | None = None) -> bytes:
    """The zip archive: folders, drawings 1 bit deep, and what a Mac left in it."""
    members = {f"{name}/": b"", f"{name}/Latin/": b"", f"__MACOSX/{name}/._Latin": b"x"}
    found = {path: picture(drawing(i), "PNG", "1") for i, path in enumerate(DRAWINGS[name])}
    return zipped(members | {f"{name}/{path}.png": png for path, png in (found | (drawings or {})).items()})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omniglot, "NUM_TRAIN", TRAIN)
    monkeypatch.setattr(omniglot, "NUM_TEST", TEST)
    monkeypatch.setattr(omniglot, "ZIP_COUNTS", {name: len(paths) for name, paths in DRAWINGS.items()})
    expect(monkeypatch, {name: archive(name) for name in DRAWINGS})


def expect(monkeypatch: pytest.MonkeyPatch, archives: dict[str, bytes]) -> dict[str, bytes]:
    """Make the table of hashes match the archives; gives them by file name."""
    monkeypatch.setattr(omniglot, "ZIP_MD5", {name: md5(content) for name, content in archives.items()})
    return {f"{name}.zip": content for name, content in archives.items()}


def source(root: Path, kind: Source = "burda", **options: Any) -> Omniglot:
    settings = {"num_valid": 4 if kind == "burda" else 1, "binarization": "none", "download": False} | options
    return Omniglot(source=kind, root=str(root), **settings)


def pairs(dataset: Dataset) -> list[tuple[bytes, int]]:
    """Image and label of all training and validation data."""
    found = []
    for part in (dataset.train, dataset.valid):
        labels = part.labels if part.labels is not None else Tensor()
        found += [(image.numpy().tobytes(), int(label)) for image, label in zip(part.values, labels, strict=True)]
    return found


def test_burda_values_labels_and_splits(tmp_path: Path) -> None:
    write_files(tmp_path, {CHARDATA: mat(chardata())})
    dataset = source(tmp_path).load()
    assert dataset.event_shape == (1, 28, 28)
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (8, 4, 5)
    assert np.array_equal(dataset.test.values[:, 0].numpy(), LEVELS[TRAIN:]), "lying on their side, or rounded"
    assert dataset.test.labels is not None
    assert dataset.test.labels.tolist() == ALPHABETS[TRAIN:]
    expected = [(image.tobytes(), label) for image, label in zip(LEVELS[:TRAIN], ALPHABETS, strict=False)]
    assert sorted(pairs(dataset)) == sorted(expected)
    assert pairs(dataset) != expected, "the validation data are the last classes"
    assert pairs(source(tmp_path).load()) == pairs(dataset)
    assert pairs(source(tmp_path, split_seed=1).load()) != pairs(dataset)


def test_burda_without_labels(tmp_path: Path) -> None:
    arrays = chardata()
    del arrays["testtarget"]
    write_files(tmp_path, {CHARDATA: mat(arrays)})
    dataset = source(tmp_path).load()
    assert dataset.train.labels is None
    assert dataset.test.labels is None


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"data": chardata()["data"][:, :-1]}, "expected 'data' of 784x12 numbers, found 784x11 double"),
        ({"data": chardata()["data"].T}, "expected 'data' of 784x12 numbers, found 12x784 double"),
        ({"testdata": chardata()["testdata"] * 255}, "expected 'testdata' in [0, 1], found 0.0 to 255.0"),
        ({"testdata": chardata()["testdata"] * np.nan}, "expected 'testdata' in [0, 1], found nan to nan"),
        ({"target": np.ones((50, TRAIN + 1))}, "expected 'target' of 50x12 numbers, found 50x13 double"),
        ({"target": np.ones((0, TRAIN))}, "expected 'target' of 1x12 numbers, found 0x12 double"),
        ({"target": np.ones((49, TRAIN))}, "expected 'testtarget' of 49x5 numbers, found 50x5 double"),
    ],
)
def test_burda_wrong_content(tmp_path: Path, change: dict[str, np.ndarray], found: str) -> None:
    write_files(tmp_path, {CHARDATA: mat(chardata() | change)})
    message = load_error(source(tmp_path))
    assert f"{tmp_path / CHARDATA} is damaged ({found}" in message


@pytest.mark.parametrize("length", [0, 100, 128, 132, 140, 2000, -9])
def test_burda_truncated(tmp_path: Path, length: int) -> None:
    write_files(tmp_path, {CHARDATA: mat(chardata())[:length]})
    assert f"{tmp_path / CHARDATA} " in load_error(source(tmp_path))


def test_burda_flipped_bytes(tmp_path: Path) -> None:
    """The sum of each compressed array is checked, also of those that are not used."""
    good = mat(chardata())
    for position in range(124, len(good), 211):
        damaged = good[:position] + bytes([good[position] ^ 16]) + good[position + 1 :]
        write_files(tmp_path, {CHARDATA: damaged})
        assert f"{tmp_path / CHARDATA} " in load_error(source(tmp_path)), f"byte {position} of {len(good)}"


def test_burda_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "MAX_UNPACKED", 100_000)
    write_files(tmp_path, {CHARDATA: mat(chardata())})
    assert "cannot be read (it unpacks to more than 100000 bytes)" in load_error(source(tmp_path))


def test_drawings_are_bright_upright_and_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, expect(monkeypatch, {name: archive(name) for name in DRAWINGS}))
    dataset = source(tmp_path, "torchvision").load()
    assert dataset.event_shape == (1, 28, 28)
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (2, 1, 2)
    # In the order of their names: Mongolian (ink 2 wide), then Tibetan (1 wide).
    image = dataset.test.values[0, 0]
    assert dataset.test.labels is not None
    assert dataset.test.labels.tolist() == [2, 3]
    # Columns 30 and 31 of 105 lie wholly in column 8 of 28, which covers 30 to 33.75; rows 0 to 60 are its first 16.
    assert image[:16, 8].tolist() == [round(2 / 3.75 * 255)] * 16
    assert image.sum() == image[:16, 8].sum()
    assert sorted(label for _, label in pairs(dataset)) == [0, 1, 1]


def test_area_weights_keep_the_total() -> None:
    weights = area_weights(105, 28)
    assert weights.shape == (28, 105)
    assert np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights.sum(axis=0), 28 / 105)
    assert np.allclose(area_weights(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert np.allclose(area_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_archive_is_refused(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = expect(monkeypatch, {name: archive(name) for name in DRAWINGS})
    content = good[f"{EVALUATION}.zip"]
    damaged = content[:-9] if damage == "truncated" else flipped(content)
    write_files(tmp_path, good | {f"{EVALUATION}.zip": damaged})
    path = tmp_path / f"{EVALUATION}.zip"
    message = load_error(source(tmp_path, "torchvision"))
    assert f"{path} is damaged (expected MD5 {md5(content)}, found {md5(damaged)}); delete it" in message


@pytest.mark.parametrize(
    ("path", "png", "found"),
    [
        ("Latin/character03/0003_01", picture(drawing(1), "PNG"), "expected 3 drawings, found 4"),
        ("Latin/character01/0001_02", picture(drawing(1)[:, :-1], "PNG"), "expected 105x105 pixels, found 104x105"),
        ("Latin/character01/0001_02", picture(drawing(1), "PNG")[:60], "cannot be read ("),
        ("Latin/character01/0001_02", picture(drawing(1), "JPEG"), "expected a PNG picture, found something else"),
        ("Latin/character01/0001_02", bytes(70_000), "expected at most 65536 bytes, found 70000"),
    ],
)
def test_wrong_drawings(tmp_path: Path, path: str, png: bytes, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = {BACKGROUND: archive(BACKGROUND, {path: png}), EVALUATION: archive(EVALUATION)}
    write_files(tmp_path, expect(monkeypatch, archives))
    message = load_error(source(tmp_path, "torchvision"))
    assert str(tmp_path / f"{BACKGROUND}.zip") in message
    assert found in message


@pytest.mark.parametrize(("kind", "names"), [("burda", [CHARDATA]), ("torchvision", ["images_background.zip"])])
def test_missing_files_and_no_network(
    tmp_path: Path, kind: Source, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = load_error(source(tmp_path, kind))
    assert f": {names[0]}" in message
    assert f"not found in {tmp_path}; set dataset.download=true, or point" in message
    no_network(monkeypatch)
    message = load_error(source(tmp_path, kind, download=True))
    assert "Omniglot could not be downloaded (" in message
    assert "Temporary failure in name resolution" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["burda", "torchvision"])
def test_download(tmp_path: Path, kind: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    files = expect(monkeypatch, {name: archive(name) for name in DRAWINGS}) | {CHARDATA: mat(chardata())}
    monkeypatch.setattr(omniglot, "CHARDATA_MD5", md5(files[CHARDATA]))
    asked = serve(monkeypatch, files)
    dataset = source(tmp_path / "new", kind, download=True).load()
    assert torch.equal(dataset.test.values, source(tmp_path / "new", kind).load().test.values)
    assert all(url.startswith("https://raw.githubusercontent.com/") for url in asked)


def test_unknown_source() -> None:
    with pytest.raises(ValueError, match=r"^source=lake: must be burda or torchvision$"):
        Omniglot(source="lake")  # type: ignore[arg-type]
