"""Decoding published PNG and JPEG files of one known size."""

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from metvae_cli.data.official import Root

PICTURE_ERRORS = (
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # raised where warnings are errors
    OSError,
    ValueError,
    SyntaxError,
    MemoryError,
)


def decode(root: Root, where: Path | str, content: bytes, kind: str, size: tuple[int, int]) -> Image.Image:
    """The picture in the bytes of a file, its pixels read.

    where: for messages
    kind: PNG or JPEG
    size: (width, height) that the file must declare; checked before any pixel is read

    Raises ConfigError.
    """
    try:
        picture = Image.open(io.BytesIO(content), formats=(kind,))
        if picture.size != size:
            found = f"{picture.size[0]}x{picture.size[1]}"
            raise root.damaged(where, f"{size[0]}x{size[1]} pixels", found)
        picture.load()
    except UnidentifiedImageError as error:
        raise root.damaged(where, f"a {kind} picture", "something else") from error
    except PICTURE_ERRORS as error:
        raise root.unreadable(where, error) from error
    return picture
