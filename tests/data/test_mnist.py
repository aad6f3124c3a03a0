"""MNIST on small files in the official format: where they are found, how verified, what a failure leaves."""

import errno
import hashlib
import os
import struct
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

from metvae_cli.data import mnist
from metvae_cli.data.mnist import EXPECTED_SHA256, MNIST, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from metvae_cli.errors import ConfigError
from tests.data.official_files import gzipped, md5, no_network, serve

NUM_TRAIN, NUM_TEST = 12, 5


def idx_images(count: int, offset: int) -> bytes:
    """`count` images in which every pixel of image i has level offset + i."""
    pixels = b"".join(bytes([offset + i]) * 784 for i in range(count))
    return struct.pack(">IIII", 2051, count, 28, 28) + pixels


def idx_labels(count: int) -> bytes:
    return struct.pack(">II", 2049, count) + bytes(i % 10 for i in range(count))


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The contents of a small MNIST, with the table of expected hashes made to match."""
    files = {
        TRAIN_IMAGES: idx_images(NUM_TRAIN, offset=10),
        TRAIN_LABELS: idx_labels(NUM_TRAIN),
        TEST_IMAGES: idx_images(NUM_TEST, offset=200),
        TEST_LABELS: idx_labels(NUM_TEST),
    }
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(mnist, "EXPECTED_SHA256", hashes)
    return files


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def load_error(source: MNIST) -> str:
    """The message of the ConfigError that loading raises: always one line naming the key and its value."""
    with pytest.raises(ConfigError) as caught:
        source.load()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"dataset.root={source.root}: ")
    return message


def replace_download(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], fail_at: str | None = None) -> None:
    """Let the archives of `files` be found; at `fail_at` half of one arrives before the connection breaks."""
    archives = {f"{name}.gz": gzipped(content) for name, content in files.items()}
    serve(monkeypatch, archives, cut=f"{fail_at}.gz")
    monkeypatch.setattr(mnist, "archive_sums", lambda: {name[:-3]: md5(archive) for name, archive in archives.items()})


@pytest.mark.parametrize("layout", ["MNIST/raw", "raw", "."])
def test_files_are_found_in_every_layout(tmp_path: Path, small_files: dict[str, bytes], layout: str) -> None:
    write_files(tmp_path / layout, small_files)
    dataset = MNIST(root=str(tmp_path), download=False, num_valid=4, binarization="none").load()
    assert dataset.event_shape == (1, 28, 28)
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (8, 4, 5)


def test_validation_is_the_end_of_the_official_training_images(tmp_path: Path, small_files: dict[str, bytes]) -> None:
    write_files(tmp_path, small_files)
    dataset = MNIST(root=str(tmp_path), download=False, num_valid=4, binarization="none").load()
    levels = [split.values[:, 0, 27, 27].tolist() for split in (dataset.train, dataset.valid, dataset.test)]
    assert levels == [list(range(10, 18)), list(range(18, 22)), list(range(200, 205))]
    labels = [split.labels for split in (dataset.train, dataset.valid, dataset.test)]
    assert [part.tolist() for part in labels if part is not None] == [
        list(range(8)),
        [8, 9, 0, 1],
        list(range(5)),
    ]


def test_dynamic_batches_differ_and_held_out_data_are_fixed(tmp_path: Path, small_files: dict[str, bytes]) -> None:
    write_files(tmp_path, small_files)
    source = MNIST(root=str(tmp_path), download=False, num_valid=4)
    dataset, again = source.load(), source.load()
    index = torch.arange(8)
    assert not torch.equal(dataset.batch(index), dataset.batch(index))
    assert torch.equal(dataset.test.values, again.test.values)
    assert set(dataset.test.values.unique().tolist()) == {0, 255}


def test_validation_must_leave_training_data(tmp_path: Path, small_files: dict[str, bytes]) -> None:
    write_files(tmp_path, small_files)
    with pytest.raises(ConfigError, match=r"^dataset\.num_valid=12: .*must be at most 11$"):
        MNIST(root=str(tmp_path), download=False, num_valid=12).load()


def test_missing_file_without_download(tmp_path: Path, small_files: dict[str, bytes]) -> None:
    write_files(tmp_path / "raw", small_files)
    (tmp_path / "raw" / TEST_LABELS).unlink()
    message = load_error(MNIST(root=str(tmp_path), download=False))
    assert f"{TEST_LABELS} not found in {tmp_path / 'raw'}" in message
    assert TRAIN_IMAGES not in message, "a file that is there was called missing"
    assert "set dataset.download=true, or point dataset.root= at" in message


@pytest.mark.parametrize("name", list(EXPECTED_SHA256))
@pytest.mark.parametrize("damage", ["truncated", "one bit", "longer"])
def test_damaged_file_is_refused(tmp_path: Path, small_files: dict[str, bytes], name: str, damage: str) -> None:
    write_files(tmp_path, small_files)
    content = small_files[name]
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    damaged = {"truncated": content[:-1], "one bit": flipped, "longer": content + bytes(1)}[damage]
    (tmp_path / name).write_bytes(damaged)
    message = load_error(MNIST(root=str(tmp_path), num_valid=4))
    assert str(tmp_path / name) in message
    assert f"expected SHA-256 {hashlib.sha256(content).hexdigest()}" in message
    assert f"found {hashlib.sha256(damaged).hexdigest()}" in message
    assert "delete it and run again with dataset.download=true" in message


def test_unreadable_file_is_refused(
    tmp_path: Path, small_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write_files(tmp_path, small_files)
    monkeypatch.setattr(hashlib, "file_digest", fail)
    message = load_error(MNIST(root=str(tmp_path), num_valid=4))
    assert f"{tmp_path / TRAIN_IMAGES} cannot be read (Input/output error); delete it" in message


def test_download_puts_verified_files_where_torchvision_expects_them(
    tmp_path: Path,
    small_files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace_download(monkeypatch, small_files)
    root = tmp_path / "new" / "data"
    assert len(MNIST(root=str(root), num_valid=4).load().train) == 8
    assert [path.name for path in root.iterdir()] == ["MNIST"], "the staging folder was left behind"
    assert {path.name for path in (root / "MNIST" / "raw").iterdir()} == set(small_files)
    assert capsys.readouterr() == ("", ""), "download progress was printed without a terminal"


def test_download_keeps_the_files_that_are_there(
    tmp_path: Path, small_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_files(raw, {TRAIN_IMAGES: b"the user's own file"})
    replace_download(monkeypatch, small_files)
    message = load_error(MNIST(root=str(tmp_path), num_valid=4))
    assert str(raw / TRAIN_IMAGES) in message
    assert "delete it" in message
    assert (raw / TRAIN_IMAGES).read_bytes() == b"the user's own file"
    (raw / TRAIN_IMAGES).unlink()
    assert len(MNIST(root=str(tmp_path), num_valid=4).load().train) == 8


def test_wrong_download_is_refused(
    tmp_path: Path, small_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_download(monkeypatch, small_files | {TEST_IMAGES: idx_images(NUM_TEST, offset=0)})
    assert TEST_IMAGES in load_error(MNIST(root=str(tmp_path), num_valid=4))


@pytest.mark.parametrize("fail_at", [TRAIN_IMAGES, TEST_LABELS])
def test_a_lost_connection_leaves_what_a_later_download_goes_on_from(
    tmp_path: Path, small_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, fail_at: str
) -> None:
    replace_download(monkeypatch, small_files, fail_at)
    assert "connection reset" in load_error(MNIST(root=str(tmp_path)))
    arrived = {f".{name}.gz.part" for name in EXPECTED_SHA256}
    assert {path.name for path in tmp_path.iterdir()} == (
        arrived if fail_at == TEST_LABELS else {f".{fail_at}.gz.part"}
    )
    replace_download(monkeypatch, small_files)
    assert len(MNIST(root=str(tmp_path), num_valid=4).load().train) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    message = load_error(MNIST(root=str(tmp_path)))
    assert "could not be downloaded" in message
    assert "Temporary failure in name resolution" in message
    assert f"in {tmp_path / 'MNIST' / 'raw'}, or point dataset.root= at" in message
    assert all(name in message for name in EXPECTED_SHA256)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_root_that_is_a_file(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.write_text("not a folder")
    assert "could not be downloaded" in load_error(MNIST(root=str(root)))
    assert root.read_text() == "not a folder"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^batch_size=0: must be at least 1$"),
        ({"num_valid": 0}, r"^num_valid=0: must be at least 1$"),
        ({"split_seed": -1}, r"^split_seed=-1: must be at least 0$"),
        ({"binarization": "soft"}, r"^binarization=soft: must be one of "),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MNIST(**arguments)


@pytest.mark.skipif("METVAE_DATA" not in os.environ, reason="METVAE_DATA does not name a folder with the real MNIST")
def test_real_mnist() -> None:
    dataset = MNIST(root=os.environ["METVAE_DATA"], download=False, binarization="none").load()
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (50_000, 10_000, 10_000)
    assert dataset.test.labels is not None
    # Published facts: digits per class of the test set, and the mean pixel of the 60000 training images.
    assert dataset.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    official = torch.cat([dataset.train.values, dataset.valid.values])
    assert official.sum().item() / official.numel() / 255 == pytest.approx(0.1307, abs=5e-5)


def test_a_failed_download_removes_the_folder_that_it_made(
    tmp_path: Path, small_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    load_error(MNIST(root=str(tmp_path / "new")))
    assert list(tmp_path.iterdir()) == []
