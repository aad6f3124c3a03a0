"""Folders of images: what is decoded and how, in memory or when asked for, and one line for every bad image."""

import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metvae_cli.data.base import Dataset
from metvae_cli.data.folder import FolderData, folder_labels
from metvae_cli.data.image_files import LazyImages, decode, find_images
from metvae_cli.errors import ConfigError, RunError
from tests.runs import train


def write(path: Path, pixels: Any, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve grey 6x4 images; image i has the level 10 i."""
    for i in range(12):
        write(tmp_path / "images" / f"{i:02}.png", np.full((6, 4), 10 * i))
    return tmp_path / "images"


def load(folder: Path, **arguments: Any) -> Dataset:
    return FolderData(**{"path": str(folder), "num_valid": 3, "num_test": 2} | arguments).load()


def refused(folder: Path, key: str = "path", **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"dataset.{key}=")
    assert ";" in message, "no remedy"
    return message


@pytest.mark.parametrize("cache_mb", [100, 0])
def test_sizes_values_and_order(folder: Path, cache_mb: int) -> None:
    dataset = load(folder, grey=True, cache_mb=cache_mb)
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (7, 3, 2)
    assert (dataset.event_shape, dataset.support, dataset.train.labels) == ((1, 6, 4), "levels", None)
    index = torch.arange(2)
    parts = [split.values[torch.arange(len(split))] for split in (dataset.train, dataset.valid, dataset.test)]
    every = torch.cat(parts)
    assert every.dtype == torch.uint8
    assert sorted(every[:, 0, 5, 3].tolist()) == list(range(0, 120, 10))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dataset.held_out(dataset.test, index)[:, 0, 0, 0], order[:2] * 10 / 255)
    assert load(folder).event_shape == (3, 6, 4)


def test_lazy_values_are_those_in_memory(folder: Path) -> None:
    lazy, memory = (load(folder, cache_mb=cache_mb) for cache_mb in (0, 100))
    assert isinstance(lazy.train.values, LazyImages)
    assert isinstance(memory.train.values, torch.Tensor)
    index = torch.tensor([4, 0, 4])
    assert torch.equal(lazy.batch(index), memory.batch(index))
    moved = lazy.to(torch.device("meta"))
    assert moved.train.values.device.type == "meta"
    assert moved.train.values[index].device.type == "meta"
    assert moved.train.values.shape == (7, 3, 6, 4)


def test_lazy_training_images_are_binarized_afresh(tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path / f"{i}.png", np.full((512, 512), 128))
    dataset = load(tmp_path, grey=True, cache_mb=1, binarization="dynamic", num_valid=2, num_test=1)
    assert isinstance(dataset.train.values, LazyImages)
    first, second = dataset.batch(torch.arange(2)), dataset.batch(torch.arange(2))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    assert first.mean().item() == pytest.approx(128 / 255, abs=0.01)
    assert isinstance(dataset.valid.values, torch.Tensor)
    assert set(dataset.valid.values.unique().tolist()) == {0, 255}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"binarization": "dynamic"}, "need 1 MB; lower dataset.num_valid=3 and dataset.num_test=2, or raise it"),
        ({"dequantize": True}, "need 1 MB; lower dataset.num_valid=3"),
        ({"binarization": "static"}, "static pixels are made once and need 1 MB; raise it, or set"),
        ({"binarization": "threshold"}, "or set dataset.binarization=dynamic or a smaller dataset.size"),
    ],
)
def test_what_is_drawn_once_must_fit(folder: Path, arguments: dict[str, Any], message: str) -> None:
    assert message in refused(folder, "cache_mb", cache_mb=0, **arguments)
    assert len(load(folder, cache_mb=1, **arguments).train) == 7


def test_folders_are_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("dog/a/1.png", "dog/2.PNG", "cat/3.jpg", "eel/4.jpeg", ".hidden/5.png", "cat/.6.png", "cat/notes.txt"):
        write(tmp_path / name, np.zeros((4, 4)), format="PNG")
    names = find_images(tmp_path)
    assert names == ["cat/3.jpg", "dog/2.PNG", "dog/a/1.png", "eel/4.jpeg"]
    labels, classes = folder_labels(names)
    assert labels is not None
    assert (labels.tolist(), classes) == ([0, 1, 1, 2], ["cat", "dog", "eel"])
    with caplog.at_level(logging.INFO):
        dataset = load(tmp_path, num_valid=1, num_test=1)
    assert dataset.train.labels is not None
    assert len(dataset.train.labels) == 2
    assert len(caplog.records) == 1
    told = f"{tmp_path.name}: 4 images, each (3, 4, 4), labels cat, dog, eel; training images in memory"
    assert caplog.records[0].getMessage() == told


def test_the_data_set_has_the_name_of_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load(Path(".")).name == load(folder).name == "images"


@pytest.mark.parametrize("names", [["a/1.png", "a/2.png"], ["a/1.png", "2.png"], ["1.png", "2.png"]])
def test_folders_that_tell_nothing_are_no_labels(names: list[str]) -> None:
    assert folder_labels(names) == (None, [])


@pytest.mark.parametrize("size", [4, [4, 4]])
def test_images_are_cropped_around_the_centre_then_resized(tmp_path: Path, size: Any) -> None:
    # 8 x 16: the middle 8 x 8 is 200, what is left and right of it must vanish.
    pixels = np.zeros((8, 16))
    pixels[:, 4:12] = 200
    for i in range(3):
        write(tmp_path / f"{i}.png", pixels)
    dataset = load(tmp_path, size=size, grey=True, num_valid=1, num_test=1)
    assert dataset.event_shape == (1, 4, 4)
    assert dataset.train.values.unique().tolist() == [200]


def test_sizes_that_do_not_divide(tmp_path: Path) -> None:
    for i, size in enumerate([(7, 13), (31, 3), (1, 1), (5, 5)]):
        write(tmp_path / f"{i}.png", np.full(size, 90))
    dataset = load(tmp_path, size=[5, 3], num_valid=1, num_test=1)
    assert dataset.event_shape == (3, 5, 3)
    assert dataset.train.values.unique().tolist() == [90]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("RGBA", (100, 200, 50, 255), [100, 200, 50]),
        ("RGBA", (100, 200, 50, 0), [0, 0, 0]),
        ("LA", (100, 0), [0, 0, 0]),
        ("L", 77, [77, 77, 77]),
        ("1", 1, [255, 255, 255]),
    ],
)
def test_colour_modes(tmp_path: Path, mode: str, colour: Any, expected: list[int]) -> None:
    Image.new(mode, (3, 2), colour).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", (3, 2, 3))[:, 1, 2].tolist() == expected


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=b"\xff\x00")
    assert decode(tmp_path / "a.png", (3, 1, 2))[:, 0].tolist() == [[255, 0], [0, 0], [0, 0]]


def test_jpeg_in_colour(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", np.full((8, 8, 3), (200, 100, 50)), quality=95)
    found = decode(tmp_path / "a.jpg", (3, 8, 8)).float().mean((1, 2))
    torch.testing.assert_close(found, torch.tensor([200.0, 100.0, 50.0]), atol=3, rtol=0)


def huge_png() -> bytes:
    """The header of an image of a hundred thousand by a hundred thousand pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read (no PNG or JPEG image); repair it or remove it"),
        (b"GIF89a" + bytes(50), "cannot be read (no PNG or JPEG image)"),
        (huge_png(), "pixels; make it smaller"),
    ],
)
def test_files_that_are_no_images(folder: Path, content: bytes, message: str) -> None:
    (folder / "05.png").write_bytes(content)
    text = refused(folder)
    assert f"{folder / '05.png'}" in text
    assert message in text


def test_pictures_that_pillow_only_warns_of_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert "00.png has more than 20 pixels; make it smaller" in refused(folder)


def test_more_than_eight_bits_are_refused(folder: Path) -> None:
    Image.fromarray(np.full((6, 4), 5000, dtype=np.uint16)).save(folder / "03.png")
    assert "03.png has more than 8 bits a channel (Pillow's mode I;16); convert it" in refused(folder)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_image_is_named(folder: Path, suffix: str) -> None:
    path = folder / f"07{suffix}"
    (folder / "07.png").unlink()
    write(path, np.random.default_rng(0).integers(0, 256, (6, 4)))
    path.write_bytes(path.read_bytes()[:-30])
    text = refused(folder)
    assert f"{path} cannot be read (" in text
    # Read when asked for, it ends a run that has begun.
    with pytest.raises(RunError, match=rf"^dataset\.path: .*07\{suffix} cannot be read"):
        LazyImages([path], (1, 6, 4), workers=2)[torch.tensor([0])]


def test_an_image_that_vanishes(folder: Path) -> None:
    lazy = load(folder, cache_mb=0).train.values
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(RunError, match="No such file"):
        lazy[torch.tensor([0])]


def test_mixed_sizes_need_a_size(folder: Path) -> None:
    write(folder / "04.png", np.zeros((5, 4)))
    text = refused(folder)
    assert f"{folder / '04.png'} has 5x4 pixels, {folder / '00.png'} 6x4; set dataset.size=[6,4]" in text
    assert load(folder, size=[6, 4]).event_shape == (3, 6, 4)


def test_folders_without_images(tmp_path: Path) -> None:
    assert "no image below; images are files with .png, .jpg, .jpeg" in refused(tmp_path)
    assert "no such folder; name the folder" in refused(tmp_path / "none")
    (tmp_path / "file.png").write_bytes(b"")
    assert "is no folder" in refused(tmp_path / "file.png")
    with pytest.raises(ConfigError, match=r"^dataset\.path=null: name the folder"):
        FolderData().load()


def test_a_folder_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Any) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", fail)
    assert "cannot be read (Permission denied); make it readable" in refused(folder)


def test_held_out_parts_must_leave_training_data(folder: Path) -> None:
    assert "nothing is left of the 12 data" in refused(folder, "num_valid", num_valid=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^batch_size=0: must be at least 1$"),
        ({"num_test": 0}, r"^num_test=0: must be at least 1$"),
        ({"workers": 0}, r"^workers=0: must be at least 1$"),
        ({"cache_mb": -1}, r"^cache_mb=-1: must be at least 0$"),
        ({"size": 0}, r"^size=0: must be null, S or \[H,W\]"),
        ({"size": [3]}, r"^size=\[3\]: must be null, S or \[H,W\]"),
        ({"size": [3, 100_000]}, r"each side between 1 and 32768 pixels$"),
        ({"binarization": "soft"}, r"^binarization=soft: must be one of "),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FolderData(**arguments)


def test_training_on_lazy_images(folder: Path, tmp_path: Path) -> None:
    words = ("dataset=folder", f"dataset.path={folder}", "dataset.cache_mb=0", "likelihood=gaussian")
    sizes = ("dataset.num_valid=3", "dataset.num_test=2", "dataset.batch_size=4", "dataset.size=[4,4]")
    assert train(*words, *sizes, f"hydra.run.dir={tmp_path / 'run'}") == 0
