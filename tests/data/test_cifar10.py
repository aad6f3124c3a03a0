"""CIFAR-10 on small batches in the published form, and pickles that would do harm."""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from metvae_cli.data import cifar10
from metvae_cli.data.cifar10 import ARCHIVE, BATCH_MD5, CIFAR10, FOLDER, TEST_BATCH
from tests.data.official_files import cifar_batch, flipped, load_error, md5, no_network, serve, tar_gz, write_files

COUNT = 3
NAMES = list(BATCH_MD5)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, COUNT, 3, 32, 32), dtype=np.uint8)
LABELS = [[(3 * i + j) % 10 for j in range(COUNT)] for i in range(6)]
BATCHES = {name: cifar_batch(PIXELS[i].reshape(COUNT, -1), LABELS[i]) for i, name in enumerate(NAMES)}


def expect(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """Make the tables of hashes and counts match the files."""
    monkeypatch.setattr(cifar10, "BATCH_MD5", {name: md5(content) for name, content in files.items()})
    monkeypatch.setattr(cifar10, "IMAGES_PER_BATCH", COUNT)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, BATCHES)


def archive_of(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> bytes:
    members = {f"{FOLDER}/readme.html": b"see the web", "../outside": b"x"}
    content = tar_gz(members | {f"{FOLDER}/{name}": batch for name, batch in files.items()})
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", md5(content))
    return content


def source(root: Path, **options: Any) -> CIFAR10:
    return CIFAR10(root=str(root), download=False, num_valid=4, **options)


def test_the_small_batches_are_what_pickle_itself_would_read() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's new name of the module
        batch = pickle.loads(BATCHES["data_batch_2"], encoding="latin1")
    assert batch.keys() == {"batch_label", "labels", "data", "filenames"}
    assert np.array_equal(batch["data"], PIXELS[1].reshape(COUNT, -1))


@pytest.mark.parametrize("form", ["archive", FOLDER, "."])
def test_values_labels_and_splits(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "archive":
        write_files(tmp_path, {ARCHIVE: archive_of(BATCHES, monkeypatch)})
    else:
        write_files(tmp_path / form, BATCHES)
    dataset = source(tmp_path).load()
    assert dataset.event_shape == (3, 32, 32)
    assert dataset.support == "levels"
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (11, 4, 3)
    official = torch.cat([dataset.train.values, dataset.valid.values])
    assert np.array_equal(official.numpy(), PIXELS[:5].reshape(15, 3, 32, 32))
    assert np.array_equal(dataset.test.values.numpy(), PIXELS[5])
    assert dataset.train.labels is not None
    assert dataset.train.labels.tolist() == [label for labels in LABELS[:5] for label in labels][:11]
    assert dataset.test.labels is not None
    assert dataset.test.labels.tolist() == LABELS[5]
    assert not (tmp_path.parent / "outside").exists(), "a member left the archive's folder"


def test_dequantized(tmp_path: Path) -> None:
    write_files(tmp_path, BATCHES)
    dataset = source(tmp_path, dequantize=True).load()
    assert dataset.support == "unit"
    assert torch.equal((dataset.test.values * 256).floor().to(torch.uint8), torch.from_numpy(PIXELS[5]))


@pytest.mark.parametrize("name", ["data_batch_3", TEST_BATCH])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "longer", "empty"])
def test_damaged_batch_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    good = BATCHES[name]
    damaged = {"truncated": good[:-1], "flipped": flipped(good), "longer": good + b".", "empty": b""}[damage]
    write_files(tmp_path, BATCHES | {name: damaged})
    message = load_error(source(tmp_path))
    assert f"{tmp_path / name} is damaged (expected MD5 {md5(good)}, found {md5(damaged)}); delete it" in message


def test_oversized_batch_is_not_read(tmp_path: Path) -> None:
    write_files(tmp_path, BATCHES | {TEST_BATCH: bytes(20_000)})
    message = load_error(source(tmp_path))
    assert f"{tmp_path / TEST_BATCH} is damaged (expected at most 13612 bytes, found 20000)" in message


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_archive_is_refused(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = archive_of(BATCHES, monkeypatch)
    damaged = good[: len(good) // 2] if damage == "truncated" else flipped(good)
    write_files(tmp_path, {ARCHIVE: damaged})
    assert f"{tmp_path / ARCHIVE} is damaged (expected MD5 {md5(good)}, found" in load_error(source(tmp_path))
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", md5(damaged))
    assert str(tmp_path / ARCHIVE) in load_error(source(tmp_path)), "damage behind a right hash was not seen"


def test_archive_without_a_batch_or_with_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {name: batch for name, batch in BATCHES.items() if name != TEST_BATCH}
    write_files(tmp_path, {ARCHIVE: archive_of(files, monkeypatch)})
    assert f"{tmp_path / ARCHIVE} holds no {FOLDER}/{TEST_BATCH}; delete it" in load_error(source(tmp_path))
    write_files(tmp_path, {ARCHIVE: archive_of(files | {TEST_BATCH: bytes(1 << 20)}, monkeypatch)})
    assert "expected at most 13612 bytes, found 1048576" in load_error(source(tmp_path))


PLAIN = {"labels": [1, 2, 3], "data": PIXELS[0].reshape(COUNT, -1)}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_batch_that_python_3_wrote(
    tmp_path: Path, protocol: int, order: Literal["C", "F"], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = PLAIN | {"data": np.asarray(PLAIN["data"], order=order)}
    files = BATCHES | {TEST_BATCH: pickle.dumps(content, protocol)}
    # The oldest protocol writes bytes as escaped text, several characters each.
    monkeypatch.setattr(cifar10, "BYTES_PER_IMAGE", 30_000)
    expect(monkeypatch, files)
    write_files(tmp_path, files)
    assert np.array_equal(source(tmp_path).load().test.values.numpy(), PIXELS[0])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (PLAIN | {"labels": [1, 2]}, "expected 3 labels, found 2"),
        (PLAIN | {"labels": [1, 2, 10]}, "expected labels from 0 to 9"),
        (PLAIN | {"labels": [1, 2, True]}, "expected labels from 0 to 9"),
        (PLAIN | {"labels": None}, "expected 3 labels, found NoneType"),
        (PLAIN | {"data": PLAIN["data"][:2]}, "expected 'data' of shape (3, 3072), found (2, 3072)"),
        (PLAIN | {"data": PLAIN["data"].astype(np.int16)}, "expected 'data' in bytes, found another type"),
        (PLAIN | {"data": [1, 2, 3]}, "expected an array 'data', found list"),
        ({"labels": [1, 2, 3]}, "expected an array 'data', found NoneType"),
        ([1, 2, 3], "expected a dictionary, found list"),
    ],
)
def test_wrong_content_is_refused(tmp_path: Path, content: object, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BATCHES | {TEST_BATCH: pickle.dumps(content, 2)}
    expect(monkeypatch, files)
    monkeypatch.setattr(cifar10, "BYTES_PER_IMAGE", 10_000)
    write_files(tmp_path, files)
    message = load_error(source(tmp_path))
    assert str(tmp_path / TEST_BATCH) in message
    assert found in message


class Hostile:
    """Unpickled by Python's own pickle, it runs a command."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "among the right entries"])
def test_a_hostile_pickle_runs_nothing(
    tmp_path: Path, protocol: int, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, proof = tmp_path / "marker", tmp_path / "proof"
    pickle.loads(pickle.dumps(Hostile(os.mkdir, str(proof)), protocol))
    assert proof.exists(), "the pickle does no harm, so that refusing it shows nothing"
    for function, arguments in [(os.mkdir, (str(marker),)), (eval, (f"__import__('os').mkdir({str(marker)!r})",))]:
        hostile = Hostile(function, *arguments)
        content = {"labels": [1, 2, 3], "data": hostile} if wrapped else hostile
        files = BATCHES | {TEST_BATCH: pickle.dumps(content, protocol)}
        expect(monkeypatch, files)
        write_files(tmp_path / FOLDER, files)
        message = load_error(source(tmp_path))
        assert f"{tmp_path / FOLDER / TEST_BATCH} cannot be read (it asks for " in message
        assert f".{function.__name__}, which is refused)" in message
        assert not marker.exists()


@pytest.mark.parametrize(
    "instructions",
    [
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",  # another codec
        b"cnumpy\nload\n(U\x01atR.",  # another function of numpy
        b"cnumpy.core.multiarray\nfromfile\n(U\x01atR.",
        b"cnumpy\nndarray.tofile\n(U\x01atR.",
        b"cnumpy\nndarray\n(tR}U\x08__dict__NsbU\x01a.",
        b"(ios\nsystem\n.",
        b"P1\n.",  # a persistent identity
        b"\x82\x01.",  # an extension code
        b"h\x07.",  # a memo that was never written
        b"0",
        b"",
        b"\x80\x09.",
        b"Nr\xff\xff\xff\x7f.",  # a memo of 16 GB
        b"Np2147483647\n.",
        b"\x8a\xff",
        b"B\xff\xff\xff\x7fabc",
    ],
)
def test_broken_or_forbidden_instructions(tmp_path: Path, instructions: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BATCHES | {TEST_BATCH: instructions}
    expect(monkeypatch, files)
    write_files(tmp_path, files)
    assert str(tmp_path / TEST_BATCH) in load_error(source(tmp_path))


def test_missing_files_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / FOLDER, {name: BATCHES[name] for name in NAMES[:5]})
    message = load_error(source(tmp_path))
    assert f": test_batch not found in {tmp_path / FOLDER}, nor {ARCHIVE} in {tmp_path}; set dataset" in message
    no_network(monkeypatch)
    root = tmp_path / "new"
    message = load_error(CIFAR10(root=str(root)))
    assert "CIFAR10 could not be downloaded (" in message
    assert "Temporary failure in name resolution" in message
    assert f"put {ARCHIVE} in {root}, or point" in message
    assert not root.exists()


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive_of(BATCHES, monkeypatch)

    serve(monkeypatch, {ARCHIVE: content})
    assert len(CIFAR10(root=str(tmp_path / "new"), num_valid=4).load().train) == 11
    assert [path.name for path in (tmp_path / "new").iterdir()] == [ARCHIVE]
