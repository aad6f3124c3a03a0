"""PNG and JPEG files as uint8 images of one size, decoded by threads: at once, or when they are asked for."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from metvae_cli.errors import RunError

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
# Others have more than 8 bits a channel: which of their values is white, nobody knows.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


class ImageFileError(Exception):
    """What is wrong with an image, and the remedy, in one line."""


def find_images(folder: Path) -> list[str]:
    """Relative paths (with /) of all PNG and JPEG files below, sorted; what begins with a dot is left out.

    Raises OSError for a folder that cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    found = []
    for place, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in images]
    return sorted(found)


def header(path: Path) -> tuple[int, int]:
    """Height and width, without decoding the image.

    Raises ImageFileError for what is no image, is too large or has more than 8 bits a channel.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ImageFileError(f"{path} is no file; remove it")
    try:
        # Pillow only warns of an image that fills the memory, up to twice that size. Not for use in threads.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height, mode = image.width, image.height, image.mode
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageFileError(f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller") from None
    except Exception as error:
        raise _unreadable(path, error) from error
    if mode not in MODES:
        raise ImageFileError(f"{path} has more than 8 bits a channel (Pillow's mode {mode}); convert it to 8 bits")
    return height, width


def decode(path: Path, shape: Sequence[int]) -> Tensor:
    """Image (C, H, W) uint8, on black where it is transparent; of another size it is cropped around its centre to the
    ratio H : W, then resized.

    Raises ImageFileError where it cannot be decoded.
    """
    channels, height, width = shape
    try:
        with Image.open(path, formats=FORMATS) as image:
            opaque = _opaque(image).convert("L" if channels == 1 else "RGB")
        if opaque.size != (width, height):
            opaque = opaque.crop(_centre(opaque.size, height, width)).resize((width, height), Image.Resampling.BILINEAR)
    # Damaged bytes end in whatever exception Pillow's decoders stumble into.
    except Exception as error:
        raise _unreadable(path, error) from error
    return torch.from_numpy(np.array(opaque)).reshape(height, width, channels).permute(2, 0, 1)


def decode_all(paths: Sequence[Path], shape: Sequence[int], workers: int) -> Tensor:
    """Images (N, C, H, W) uint8, in the order of the paths. Raises ImageFileError for the first that fails."""
    images = torch.empty((len(paths), *shape), dtype=torch.uint8)
    with ThreadPoolExecutor(max_workers=max(1, min(workers, len(paths)))) as pool:
        for row, image in enumerate(pool.map(lambda path: decode(path, shape), paths)):
            images[row] = image
    return images


@dataclass(frozen=True)
class LazyImages:
    """`LazyValues` of image files: decoded each time they are asked for.

    paths: the files
    event_shape: (C, H, W)
    workers: threads that decode
    device: where the images are given
    """

    paths: Sequence[Path]
    event_shape: tuple[int, int, int]
    workers: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self.paths), *self.event_shape))

    def __len__(self) -> int:
        """N."""
        return len(self.paths)

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Images at an index (B,): (B, C, H, W) uint8. Raises RunError where one cannot be decoded: a run has begun."""
        try:
            images = decode_all([self.paths[i] for i in index.tolist()], self.event_shape, self.workers)
        except ImageFileError as error:
            raise RunError(f"dataset.path: {error}") from error
        return images.to(self.device)

    def to(self, device: torch.device) -> "LazyImages":
        """The same images, given on a device."""
        return replace(self, device=device)


def _opaque(image: Image.Image) -> Image.Image:
    """The image on black, where it has anything transparent."""
    if image.mode not in ("LA", "PA", "RGBA") and "transparency" not in image.info:
        return image
    coloured = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured)


def _centre(size: tuple[int, int], height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest part of ratio height : width around the centre of (W, H)."""
    scale = min(size[0] / width, size[1] / height)
    across, down = max(1, round(scale * width)), max(1, round(scale * height))
    left, top = (size[0] - across) // 2, (size[1] - down) // 2
    return left, top, left + across, top + down


def _unreadable(path: Path, error: Exception) -> ImageFileError:
    known = isinstance(error, UnidentifiedImageError)
    reason = "no PNG or JPEG image" if known else (str(error).splitlines() or [type(error).__name__])[0][:120]
    return ImageFileError(f"{path} cannot be read ({reason}); repair it or remove it")
