"""CelebA on a few small faces in the published layout: crop, parts, labels, cache, and what is wrong with files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metvae_cli.data import celeba
from metvae_cli.data.celeba import ATTRIBUTES, PARTITION, PICTURES, CelebA
from metvae_cli.errors import ConfigError
from tests.data.official_files import flipped, load_error, md5, picture, write_files, zipped

PARTS = [0, 0, 0, 1, 1, 2, 2]
NAMES = [f"{number + 1:06d}.jpg" for number in range(len(PARTS))]


def face(number: int) -> np.ndarray:
    """A picture 178x218: red at the top and blue below its middle, with a green frame outside the crop."""
    pixels = np.zeros((218, 178, 3), dtype=np.uint8)
    pixels[:109, :, 0] = 200 - 10 * number
    pixels[109:, :, 2] = 100 + 10 * number
    frame = np.ones((218, 178), dtype=bool)
    frame[35 - 12 : 183 + 12, 15 - 12 : 163 + 12] = False
    pixels[frame] = (0, 255, 0)
    return pixels


JPEGS = {name: picture(face(number), "JPEG") for number, name in enumerate(NAMES)}
LISTS = {
    PARTITION: "".join(f"{name} {part}\n" for name, part in zip(NAMES, PARTS, strict=True)).encode(),
    ATTRIBUTES: (
        f"{len(NAMES)}\nBald Smiling Young \n"
        + "".join(f"{name} -1  {1 if number % 2 else -1}  1\n" for number, name in enumerate(NAMES))
    ).encode(),
}
FOLDER = {f"{PICTURES}/{name}": content for name, content in JPEGS.items()}
ZIP = {f"{PICTURES}.zip": zipped({f"{PICTURES}/": b""} | FOLDER)}


def expect(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    for name, constant in (
        (PARTITION, "PARTITION_MD5"),
        (ATTRIBUTES, "ATTRIBUTES_MD5"),
        (f"{PICTURES}.zip", "ZIP_MD5"),
    ):
        if name in files:
            monkeypatch.setattr(celeba, constant, md5(files[name]))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, LISTS | ZIP)


def source(root: Path, **options: Any) -> CelebA:
    return CelebA(root=str(root), **options)


def caches(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if "celeba-" in path.name)


@pytest.mark.parametrize("pictures", [FOLDER, ZIP], ids=["folder", "zip"])
@pytest.mark.parametrize("layout", [".", "celeba"])
def test_values_labels_and_parts(tmp_path: Path, pictures: dict[str, bytes], layout: str) -> None:
    write_files(tmp_path / layout, LISTS | pictures)
    dataset = source(tmp_path, attribute="Smiling").load()
    assert dataset.event_shape == (3, 64, 64)
    assert dataset.support == "levels"
    parts = (dataset.train, dataset.valid, dataset.test)
    assert [len(part) for part in parts] == [3, 2, 2]
    assert [part.labels.tolist() for part in parts if part.labels is not None] == [[0, 1, 0], [1, 0], [1, 0]]
    values = torch.cat([part.values for part in parts]).float()
    for number, image in enumerate(values):
        # The middle of the picture, 109 from the top, is row 32 of 64. JPEG and the averaging blur it.
        assert (image[0, :30] - (200 - 10 * number)).abs().max() <= 4
        assert (image[2, 34:] - (100 + 10 * number)).abs().max() <= 4
        assert image[2, :30].max() <= 4
        assert image[1].max() <= 12, "the frame outside the crop is seen"


def test_the_crop_is_resized_as_pillow_does(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    jpeg = picture(noise, "JPEG")
    write_files(tmp_path, LISTS | FOLDER | {f"{PICTURES}/{NAMES[0]}": jpeg})
    (tmp_path / "one.jpg").write_bytes(jpeg)
    with Image.open(tmp_path / "one.jpg") as opened:
        expected = opened.crop((15, 35, 163, 183)).resize((64, 64), Image.Resampling.BILINEAR)
    image = source(tmp_path).load().train.values[0]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_without_labels_and_limited(tmp_path: Path) -> None:
    write_files(tmp_path, {PARTITION: LISTS[PARTITION]} | FOLDER)
    dataset = source(tmp_path, limit=2).load()
    assert [len(part) for part in (dataset.train, dataset.valid, dataset.test)] == [2, 2, 2]
    assert dataset.train.labels is None
    everything = source(tmp_path).load()
    assert torch.equal(dataset.train.values, everything.train.values[:2])
    assert torch.equal(dataset.test.values, everything.test.values)
    assert len(caches(tmp_path)) == 2, "different settings share a cache"


@pytest.mark.parametrize("pictures", [FOLDER, ZIP], ids=["folder", "zip"])
def test_the_cache_is_used_and_replaced_when_it_must_be(
    tmp_path: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    original = celeba.decode

    def counting(root: Any, where: Any, content: bytes, kind: str, size: tuple[int, int]) -> Image.Image:
        decoded.append(str(where))
        return original(root, where, content, kind, size)

    monkeypatch.setattr(celeba, "decode", counting)
    write_files(tmp_path, LISTS | pictures)
    first = source(tmp_path).load()
    (cache,) = caches(tmp_path)
    content = cache.read_bytes()
    assert len(decoded) == 7
    assert torch.equal(source(tmp_path).load().train.values, first.train.values)
    assert len(decoded) == 7, "the cache was not used"
    for damaged in (content[:-1], b"", b"rubbish", content.replace(b"(7, 3, 64, 64)", b"(7, 3, 64, 63)")):
        cache.write_bytes(damaged)
        assert torch.equal(source(tmp_path).load().train.values, first.train.values)
        assert cache.read_bytes() == content
    assert len(decoded) == 7 * 5
    changed = {f"{PICTURES}/{NAMES[0]}": picture(face(12), "JPEG")}
    write_files(tmp_path, changed if pictures is FOLDER else {f"{PICTURES}.zip": zipped(FOLDER | changed)})
    expect(monkeypatch, {f"{PICTURES}.zip": zipped(FOLDER | changed)})
    assert not torch.equal(source(tmp_path).load().train.values[0], first.train.values[0]), "the cache is stale"


def test_without_room_for_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    write_files(tmp_path, LISTS | FOLDER)
    monkeypatch.setattr(celeba.np, "save", full)
    assert len(source(tmp_path).load().train) == 3
    assert caches(tmp_path) == []


@pytest.mark.parametrize("name", [PARTITION, ATTRIBUTES, f"{PICTURES}.zip"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "longer"])
def test_damaged_file_is_refused_by_its_hash(tmp_path: Path, name: str, damage: str) -> None:
    files = LISTS | ZIP
    good = files[name]
    # The zip's damage lies in a picture, where its table of contents does not show it.
    damaged = {"truncated": good[:-5], "flipped": flipped(good), "longer": good + b"\n"}[damage]
    write_files(tmp_path, files | {name: damaged})
    message = load_error(source(tmp_path, attribute="Bald"))
    assert str(tmp_path / name) in message
    assert "get it again" in message
    assert caches(tmp_path) == []


@pytest.mark.parametrize(
    ("jpeg", "found"),
    [
        (JPEGS[NAMES[1]][:400], "cannot be read ("),
        (JPEGS[NAMES[1]][:-200], "cannot be read ("),
        (b"", "expected a JPEG picture, found something else"),
        (picture(face(1), "PNG"), "expected a JPEG picture, found something else"),
        (picture(face(1)[1:], "JPEG"), "expected 178x218 pixels, found 178x217"),
        (bytes((1 << 20) + 1), "expected at most 1048576 bytes, found 1048577"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_damaged_picture_is_refused(
    tmp_path: Path, jpeg: bytes, found: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = FOLDER | {f"{PICTURES}/{NAMES[1]}": jpeg}
    if form == "zip":
        pictures = {f"{PICTURES}.zip": zipped(pictures)}
        expect(monkeypatch, pictures)
    write_files(tmp_path, LISTS | pictures)
    message = load_error(source(tmp_path))
    assert f"{PICTURES}/{NAMES[1]}" in message.replace(f"{PICTURES}.zip:", "")
    assert found in message
    assert caches(tmp_path) == []


@pytest.mark.parametrize("limit", [30_000, 10_000])
def test_a_picture_that_is_too_large_to_decode(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns above its limit (an error here) and refuses above twice its limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    write_files(tmp_path, LISTS | FOLDER)
    message = load_error(source(tmp_path))
    assert f"{PICTURES}/{NAMES[0]} cannot be read (Image size (38804 pixels) exceeds limit of " in message


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert f"{PARTITION} not found in {tmp_path}; get it, {PICTURES}.zip and" in load_error(source(tmp_path))
    write_files(tmp_path, {PARTITION: LISTS[PARTITION]})
    assert f"neither {PICTURES}/ nor {PICTURES}.zip found in {tmp_path}; point" in load_error(source(tmp_path))
    write_files(tmp_path, {f"{PICTURES}/{name}": JPEGS[name] for name in NAMES[2:]})
    message = load_error(source(tmp_path))
    assert f"{tmp_path / PICTURES} holds no 000001.jpg, one of 2 missing pictures; " in message


def test_member_missing_in_the_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{PICTURES}.zip": zipped({name: FOLDER[name] for name in list(FOLDER)[:-1]})}
    expect(monkeypatch, files)
    write_files(tmp_path, LISTS | files)
    message = load_error(source(tmp_path))
    assert f"{PICTURES}.zip holds no {PICTURES}/000007.jpg, one of 1 missing pictures" in message


@pytest.mark.parametrize(
    "text",
    [b"000001.jpg\n", b"000001.jpg 3\n", b"../../x.jpg 0\n", b"a/../b.jpg 0\n", b"", b"000001.jpg 0\n", b"\xff 0"],
)
def test_wrong_partition(tmp_path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, {PARTITION: text})
    write_files(tmp_path, LISTS | FOLDER | {PARTITION: text})
    assert f"{tmp_path / PARTITION} " in load_error(source(tmp_path))


def test_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {PARTITION: LISTS[PARTITION]} | FOLDER)
    with pytest.raises(ConfigError, match=rf"^dataset\.attribute=Bald: {tmp_path / ATTRIBUTES} not found; put it"):
        source(tmp_path, attribute="Bald").load()
    write_files(tmp_path, LISTS)
    with pytest.raises(ConfigError, match=r"^dataset\.attribute=bald: must be null or one of Bald, Smiling, Young$"):
        source(tmp_path, attribute="bald").load()
    cut = LISTS[ATTRIBUTES].replace(b"000003.jpg -1", b"000003.jpg")
    expect(monkeypatch, {ATTRIBUTES: cut})
    write_files(tmp_path, {ATTRIBUTES: cut})
    assert "expected 1 or -1 for each of 3 attributes of 000003.jpg" in load_error(source(tmp_path, attribute="Bald"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^batch_size=0: must be at least 1$"),
        ({"limit": 0}, r"^limit=0: must be at least 1$"),
        ({"split_seed": -1}, r"^split_seed=-1: must be at least 0$"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CelebA(**arguments)


def test_dequantized_images_differ_and_held_out_ones_are_fixed(tmp_path: Path) -> None:
    write_files(tmp_path, LISTS | FOLDER)
    dataset, again = (source(tmp_path, dequantize=True).load() for _ in range(2))
    assert dataset.support == "unit"
    index = torch.arange(3)
    assert not torch.equal(dataset.batch(index), dataset.batch(index))
    assert torch.equal(dataset.test.values, again.test.values)
