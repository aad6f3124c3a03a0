"""Fashion-MNIST, KMNIST and EMNIST on small files in the official formats, compressed and not."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from metvae_cli.data import mnist_relatives
from metvae_cli.data.mnist_relatives import EMNIST, KMNIST, TEST, TRAIN, EmnistSplit, FashionMNIST
from metvae_cli.data.official import OfficialImages
from metvae_cli.torchvision_import import import_torchvision
from tests.data.official_files import (
    flipped,
    gzipped,
    idx_images,
    idx_labels,
    load_error,
    md5,
    no_network,
    serve,
    write_files,
    zipped,
)

RNG = np.random.default_rng(0)
PIXELS = {"train": RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8), "test": RNG.integers(0, 256, (5, 28, 28), "u1")}
BARE = {
    TRAIN[0]: idx_images(PIXELS["train"]),
    TRAIN[1]: idx_labels([i % 10 for i in range(12)]),
    TEST[0]: idx_images(PIXELS["test"]),
    TEST[1]: idx_labels([9, 8, 7, 6, 5]),
}
ARCHIVES = {f"{name}.gz": gzipped(content) for name, content in BARE.items()}
KINDS: list[tuple[type[OfficialImages], str, str]] = [
    (FashionMNIST, "FashionMNIST", "FASHION_MD5"),
    (KMNIST, "KMNIST", "KMNIST_MD5"),
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published counts and hashes, made to match the small files."""
    for _, _, table in KINDS:
        monkeypatch.setattr(mnist_relatives, table, {name: md5(ARCHIVES[f"{name}.gz"]) for name in BARE})
    monkeypatch.setattr(mnist_relatives, "NUM_TRAIN", (12,))
    monkeypatch.setattr(mnist_relatives, "NUM_TEST", (5,))
    monkeypatch.setattr(mnist_relatives, "EMNIST_COUNTS", dict.fromkeys(mnist_relatives.EMNIST_COUNTS, ((12,), (5,))))


@pytest.mark.parametrize(("kind", "title", "_table"), KINDS)
@pytest.mark.parametrize("files", [BARE, ARCHIVES], ids=["uncompressed", "archives"])
@pytest.mark.parametrize("layout", ["{}/raw", "raw", "."])
def test_values_labels_and_splits(
    tmp_path: Path, kind: type[OfficialImages], title: str, _table: str, files: dict[str, bytes], layout: str
) -> None:
    write_files(tmp_path / layout.format(title), files)
    dataset = kind(root=str(tmp_path), download=False, num_valid=4, binarization="none").load()
    assert dataset.name == title.lower()
    assert dataset.event_shape == (1, 28, 28)
    official = torch.cat([dataset.train.values, dataset.valid.values])[:, 0]
    assert np.array_equal(official.numpy(), PIXELS["train"])
    assert np.array_equal(dataset.test.values[:, 0].numpy(), PIXELS["test"])
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (8, 4, 5)
    labels = [split.labels for split in (dataset.train, dataset.valid, dataset.test)]
    expected = [list(range(8)), [8, 9, 0, 1], [9, 8, 7, 6, 5]]
    assert [part.tolist() for part in labels if part is not None] == expected


@pytest.mark.parametrize("name", list(ARCHIVES))
@pytest.mark.parametrize("damage", ["truncated", "flipped", "longer"])
def test_damaged_archive_is_refused_by_its_hash(tmp_path: Path, name: str, damage: str) -> None:
    content = ARCHIVES[name]
    damaged = {"truncated": content[:-9], "flipped": flipped(content), "longer": content + b"\0"}[damage]
    write_files(tmp_path, ARCHIVES | {name: damaged})
    message = load_error(KMNIST(root=str(tmp_path), num_valid=4))
    assert f"{tmp_path / name} is damaged (expected MD5 {md5(content)}, found {md5(damaged)}); delete it" in message


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        (TRAIN[0], BARE[TRAIN[0]][:-1], "expected 9424 bytes, found 9423"),
        (TRAIN[0], BARE[TRAIN[0]] + b"\0", "expected at most 9424 bytes, found 9425"),
        (TRAIN[0], BARE[TRAIN[0]][:9], "expected a header of 16 bytes, found 9"),
        (TRAIN[0], BARE[TEST[0]], "expected 12 images, found 5"),
        (TRAIN[0], b"\1" + BARE[TRAIN[0]][1:], "expected magic number 2051 and images of 28x28, found 16779267 and"),
        (TRAIN[0], BARE[TRAIN[0]][:12] + b"\0\0\0\1" + bytes(12), "images of 28x28, found 2051 and 28x1"),
        (TRAIN[1], BARE[TRAIN[1]][:-1], "expected 20 bytes, found 19"),
        (TRAIN[1], b"", "expected a header of 8 bytes, found 0"),
        (TRAIN[1], BARE[TEST[0]][:16], "expected magic number 2049, found 2051"),
        (TEST[1], idx_labels([1, 2, 3, 4, 10]), "expected labels 0 to 9, found 1 to 10"),
        (TEST[1], idx_labels([1, 2, 3, 4]), "expected 5 labels, found 4"),
    ],
)
def test_wrong_structure_is_refused_without_a_hash(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    write_files(tmp_path, BARE | {name: content})
    message = load_error(FashionMNIST(root=str(tmp_path), num_valid=4))
    assert f"{tmp_path / name} is damaged (" in message
    assert found in message


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzipped(bytes(5_000_000))
    table = {name: md5(ARCHIVES[f"{name}.gz"]) for name in BARE} | {TRAIN[0]: md5(bomb)}
    monkeypatch.setattr(mnist_relatives, "KMNIST_MD5", table)
    write_files(tmp_path, ARCHIVES | {f"{TRAIN[0]}.gz": bomb})
    assert "expected at most 9424 bytes when unpacked, found more" in load_error(KMNIST(root=str(tmp_path)))


def test_mnist_is_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(BARE[TRAIN[0]]).hexdigest()
    monkeypatch.setitem(mnist_relatives.EXPECTED_SHA256, TRAIN[0], digest)
    write_files(tmp_path, BARE)
    assert f"{tmp_path / TRAIN[0]} is MNIST's file of that name" in load_error(FashionMNIST(root=str(tmp_path)))


@pytest.mark.parametrize(("kind", "title", "_table"), KINDS)
def test_missing_file_without_download(tmp_path: Path, kind: type[OfficialImages], title: str, _table: str) -> None:
    write_files(tmp_path / title / "raw", {name: BARE[name] for name in (*TRAIN, TEST[0])})
    message = load_error(kind(root=str(tmp_path), download=False))
    assert f": {TEST[1]} not found in {tmp_path / title / 'raw'}, with or without .gz; set" in message


@pytest.mark.parametrize("kind", [FashionMNIST, KMNIST, EMNIST])
def test_no_network(
    tmp_path: Path,
    kind: type[OfficialImages],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    no_network(monkeypatch)
    root = tmp_path / "new"
    message = load_error(kind(root=str(root)))
    assert f"{kind.__name__} could not be downloaded (" in message
    assert "Temporary failure in name resolution" in message
    assert f"in {root / kind.__name__ / 'raw'}, or point dataset.root= at" in message
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_download_fetches_what_is_missing_and_keeps_the_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, torchvision = serve(monkeypatch, ARCHIVES, down="first"), import_torchvision()
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://first/", "http://second/"])
    raw = tmp_path / "FashionMNIST" / "raw"
    write_files(raw, {TRAIN[1]: BARE[TRAIN[1]]})
    assert len(FashionMNIST(root=str(tmp_path), num_valid=4).load().train) == 8
    assert {path.name for path in raw.iterdir()} == ARCHIVES.keys() - {f"{TRAIN[1]}.gz"} | {TRAIN[1]}
    assert [path.name for path in tmp_path.iterdir()] == ["FashionMNIST"]
    assert len(asked) == 6
    assert not any("labels-idx1" in url and "train" in url for url in asked)


def emnist_files(split: str, labels: list[int]) -> dict[str, bytes]:
    """The four files of a split; images lie on their side in them."""
    return {
        f"emnist-{split}-train-images-idx3-ubyte": idx_images(PIXELS["train"].transpose(0, 2, 1).copy()),
        f"emnist-{split}-train-labels-idx1-ubyte": idx_labels(labels),
        f"emnist-{split}-test-images-idx3-ubyte": idx_images(PIXELS["test"].transpose(0, 2, 1).copy()),
        f"emnist-{split}-test-labels-idx1-ubyte": idx_labels(labels[:5]),
    }


def emnist_zip(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> bytes:
    content = zipped({f"gzip/{name}.gz": gzipped(content) for name, content in files.items()})
    monkeypatch.setattr(mnist_relatives, "EMNIST_MD5", md5(content))
    return content


@pytest.mark.parametrize("form", ["gzip.zip", "gz", "uncompressed"])
@pytest.mark.parametrize(("split", "last"), [("balanced", 46), ("letters", 26), ("byclass", 61), ("mnist", 9)])
def test_emnist_is_upright(
    tmp_path: Path, form: str, split: EmnistSplit, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = 1 if split == "letters" else 0
    labels = [last, first, *[last - 1] * 10]
    files = emnist_files(split, labels)
    write_files(
        tmp_path / "EMNIST" / "raw",
        {
            "gzip.zip": {"gzip.zip": emnist_zip(files, monkeypatch)},
            "gz": {f"{name}.gz": gzipped(content) for name, content in files.items()},
            "uncompressed": files,
        }[form],
    )
    source = EMNIST(split=split, root=str(tmp_path), download=False, num_valid=4, binarization="none")
    dataset = source.load()
    official = torch.cat([dataset.train.values, dataset.valid.values])[:, 0]
    assert np.array_equal(official.numpy(), PIXELS["train"])
    assert np.array_equal(dataset.test.values[:, 0].numpy(), PIXELS["test"])
    assert dataset.test.labels is not None
    assert dataset.test.labels.tolist() == [label - first for label in labels[:5]]


def test_emnist_archive_is_verified_and_its_members_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = EMNIST(split="digits", root=str(tmp_path), download=False, num_valid=4)
    archive = tmp_path / "gzip.zip"
    good = emnist_zip(emnist_files("digits", [0] * 12), monkeypatch)
    archive.write_bytes(flipped(good))
    assert f"{archive} is damaged (expected MD5 {md5(good)}, found" in load_error(source)
    archive.write_bytes(emnist_zip(emnist_files("letters", [1] * 12), monkeypatch))
    message = load_error(source)
    assert f"{archive} holds no gzip/emnist-digits-train-images-idx3-ubyte.gz; delete it" in message
    archive.write_bytes(b"no archive")
    monkeypatch.setattr(mnist_relatives, "EMNIST_MD5", md5(b"no archive"))
    assert f"{archive} cannot be read (File is not a zip file)" in load_error(source)


def test_emnist_missing_file_and_wrong_split(tmp_path: Path) -> None:
    message = load_error(EMNIST(split="digits", root=str(tmp_path), download=False))
    assert "neither gzip.zip nor all of emnist-digits-train-images-idx3-ubyte, " in message
    with pytest.raises(ValueError, match=r"^split=upper: must be one of balanced, "):
        EMNIST(split="upper")  # type: ignore[arg-type]
