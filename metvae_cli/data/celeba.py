"""CelebA: photographs of faces, cropped and made 64x64, decoded once and kept in a cache beside them."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metvae_cli.data.base import Dataset, Split, require_at_least
from metvae_cli.data.binarization import binarized_dataset
from metvae_cli.data.official import GET_AGAIN, Root
from metvae_cli.data.pictures import decode
from metvae_cli.errors import ConfigError

PICTURES = "img_align_celeba"
PARTITION, ATTRIBUTES = "list_eval_partition.txt", "list_attr_celeba.txt"
# As torchvision has them.
ZIP_MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"
PARTITION_MD5 = "d32c9cbf5e040fd4025c592c306e6668"
ATTRIBUTES_MD5 = "75e246fa4810816ffd6ee81facbd244c"

SIZE = (178, 218)
CROP = (15, 35, 163, 183)  # the 148x148 in the middle
SIDE = 64
SHAPE = (3, SIDE, SIDE)
MAX_PICTURE_BYTES = 1 << 20
MAX_LIST_BYTES = 1 << 26
MAX_THREADS = 8


class CelebA:
    """Event shape (3, 64, 64); the published train, validation and test parts; labels 0 or 1 where one is asked for.

    batch_size: training data per iteration
    root: folder (or its subfolder celeba/) with img_align_celeba/*.jpg or img_align_celeba.zip,
        list_eval_partition.txt and, for labels, list_attr_celeba.txt; decoded images are kept there in a .npy file
    attribute: the name of the attribute that is the label, as Smiling; null for no labels
    limit: at most this many images of each part, the first ones; null for all (2.5 GB of memory)
    split_seed: seed of the noise of held-out data
    dequantize: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    The lists and the zip archive (when it is decoded) are verified by their published MD5; of single .jpg files no
    hash is published: that all are there and each is a whole picture of 178x218 is checked.

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        root: str = "data",
        attribute: str | None = None,
        limit: int | None = None,
        split_seed: int = 0,
        dequantize: bool = False,
    ) -> None:
        require_at_least(1, batch_size=batch_size)
        if limit is not None:
            require_at_least(1, limit=limit)
        require_at_least(0, split_seed=split_seed)
        self.batch_size = batch_size
        self.root = root
        self.attribute = attribute
        self.limit = limit
        self.split_seed = split_seed
        self.dequantize = dequantize

    def load(self) -> Dataset:
        """The three splits. Raises ConfigError: files missing or damaged, or no such attribute."""
        root = Root(self.root, GET_AGAIN)
        folder = _folder(root)
        parts = [names[: self.limit] for names in _partition(root, folder / PARTITION)]
        names = [name for part in parts for name in part]
        labels = None
        if self.attribute is not None:
            labels = _labels(root, folder / ATTRIBUTES, self.attribute, names)
        with _pictures(root, folder, names) as pictures:
            images = _decoded(root, folder, pictures)
        sizes = [len(part) for part in parts]
        values = images.split(sizes)
        numbers = (None, None, None) if labels is None else labels.split(sizes)
        train, valid, test = (Split(v, n) for v, n in zip(values, numbers, strict=True))
        return binarized_dataset("celeba", train, valid, test, "none", self.split_seed, dequantize=self.dequantize)


@dataclass(frozen=True)
class _Pictures:
    """The pictures that are asked for.

    names: of the .jpg files, in order
    identity: changes when the files do
    read: the bytes of one, by name
    verify: checks the hash of them all, where there is one
    """

    names: list[str]
    identity: str
    read: Callable[[str], bytes]
    verify: Callable[[], None]


def _folder(root: Root) -> Path:
    folders = (root.path / "celeba", root.path)
    for folder in folders:
        if (folder / PARTITION).is_file():
            return folder
    raise root.error(
        f"{PARTITION} not found in {root.path}; get it, {PICTURES}.zip and (for labels) {ATTRIBUTES} from "
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and point dataset.root= at their folder"
    )


def _partition(root: Root, path: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of the pictures for training, validation and test."""
    root.verify(path, "md5", PARTITION_MD5)
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for number, line in enumerate(_lines(root, path), start=1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2") or not _is_picture(words[0]):
            raise root.damaged(path, f"a picture and 0, 1 or 2 in line {number}", repr(line[:40]))
        parts[int(words[1])].append(words[0])
    if not all(parts):
        raise root.damaged(path, "pictures in all three parts", f"{', '.join(str(len(part)) for part in parts)}")
    return parts


def _is_picture(name: str) -> bool:
    """Whether a name is one of the published ones, which also lead to no other folder."""
    return len(name) == 10 and name[:6].isdecimal() and name[6:] == ".jpg"


def _labels(root: Root, path: Path, attribute: str, names: list[str]) -> Tensor:
    """1 where the picture has the attribute, 0 where not, (N,) int64."""
    if not path.is_file():
        raise ConfigError(
            f"dataset.attribute={attribute}: {path} not found; put it there, or set dataset.attribute=null"
        )
    root.verify(path, "md5", ATTRIBUTES_MD5)
    lines = _lines(root, path)
    known = lines[1].split() if len(lines) > 1 else []
    if attribute not in known:
        raise ConfigError(f"dataset.attribute={attribute}: must be null or one of {', '.join(known)}")
    column = known.index(attribute) + 1
    rows = {words[0]: words[1:] for words in map(str.split, lines[2:]) if len(words) == len(known) + 1}
    found = [rows.get(name, [""] * column)[column - 1] for name in names]
    wrong = next((name for name, value in zip(names, found, strict=True) if value not in ("1", "-1")), None)
    if wrong is not None:
        raise root.damaged(path, f"1 or -1 for each of {len(known)} attributes of {wrong}", "no such line")
    return torch.tensor([int(value == "1") for value in found], dtype=torch.int64)


def _lines(root: Root, path: Path) -> list[str]:
    try:
        return root.read(path, MAX_LIST_BYTES).decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise root.unreadable(path, error) from error


@contextlib.contextmanager
def _pictures(root: Root, folder: Path, names: list[str]) -> Iterator[_Pictures]:
    """The pictures of the folder, or else of the zip archive, all of them known to be there."""
    pictures, path = folder / PICTURES, folder / f"{PICTURES}.zip"
    if pictures.is_dir():
        sizes = {}
        for name in names:
            with contextlib.suppress(OSError):
                status = (pictures / name).stat()
                sizes[name] = f"{status.st_size} {status.st_mtime_ns}"
        _require_all(root, pictures, names, sizes)

        def read(name: str) -> bytes:
            return root.read(pictures / name, MAX_PICTURE_BYTES)

        yield _Pictures(names, _identity(names, sizes), read, lambda: None)
    elif path.is_file():
        with root.unzip(path) as archive:
            sizes = {info.filename: f"{info.file_size} {info.CRC}" for info in archive.infolist()}
            members = [f"{PICTURES}/{name}" for name in names]
            _require_all(root, path, members, sizes)

            def unzip(name: str) -> bytes:
                return root.member(archive, f"{PICTURES}/{name}", MAX_PICTURE_BYTES)

            yield _Pictures(names, _identity(members, sizes), unzip, lambda: root.verify(path, "md5", ZIP_MD5))
    else:
        raise root.error(
            f"neither {PICTURES}/ nor {PICTURES}.zip found in {folder}; point dataset.root= at their folder"
        )


def _require_all(root: Root, path: Path, names: list[str], found: dict[str, str]) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        raise root.error(f"{path} holds no {missing[0]}, one of {len(missing)} missing pictures; {root.remedy}")


def _identity(names: list[str], sizes: dict[str, str]) -> str:
    """A hash of the list of files and of what is done to them."""
    digest = hashlib.sha256(f"{SIZE} {CROP} {SHAPE} bilinear".encode())
    for name in names:
        digest.update(f"\n{name} {sizes[name]}".encode())
    return digest.hexdigest()[:16]


def _decoded(root: Root, folder: Path, pictures: _Pictures) -> Tensor:
    """Levels (N, 3, 64, 64) uint8, from the cache where it is there and whole."""
    path = folder / f"celeba-{SIDE}x{SIDE}-{pictures.identity}.npy"
    shape = (len(pictures.names), *SHAPE)
    cached = _read_cache(path, shape)
    if cached is None:
        pictures.verify()
        cached = np.empty(shape, dtype=np.uint8)
        _decode_all(root, pictures, cached)
        _write_cache(path, cached)
    return torch.from_numpy(cached)


def _decode_all(root: Root, pictures: _Pictures, images: np.ndarray) -> None:
    def decode_one(index: int) -> None:
        name = pictures.names[index]
        picture = decode(root, f"{PICTURES}/{name}", pictures.read(name), "JPEG", SIZE)
        small = picture.convert("RGB").crop(CROP).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        images[index] = np.asarray(small).transpose(2, 0, 1)

    # Pillow decodes without holding the interpreter's lock.
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        try:
            for _ in pool.map(decode_one, range(len(images))):
                pass
        except ConfigError:
            pool.shutdown(cancel_futures=True)
            raise


def _read_cache(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cached images; None where there are none, or the file is not whole."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # maps no more than the file holds
    except (OSError, ValueError, EOFError, SyntaxError):
        return None
    return np.array(mapped) if mapped.shape == shape and mapped.dtype == np.uint8 else None


def _write_cache(path: Path, images: np.ndarray) -> None:
    """Keep the images for the next time: written beside, then renamed, so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    # Where it cannot be written (a full or read-only disk) the images are decoded again the next time.
    with contextlib.suppress(OSError):
        try:
            with partial.open("wb") as file:
                np.save(file, images, allow_pickle=False)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
