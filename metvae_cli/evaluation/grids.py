"""Grids of images, and words beside them."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from metvae_cli.evaluation.figures import new_figure, rendered

_CELL = 48  # least width of an image in pixels: a caption of six letters fits above it
_BORDER, _GREY = 2, 0.5
_FONT = 8  # points
_LETTER, _LINE = 6.5, 18  # width of a letter and height of a line of that size, in pixels


def is_image(event_shape: tuple[int, ...]) -> bool:
    """Whether data are (1 or 3, H, W)."""
    return len(event_shape) == 3 and event_shape[0] in (1, 3)


def grid(images: Tensor, columns: int) -> Tensor:
    """Images (N, C, H, W) side by side, (3, H', W'), enlarged by whole pixels where they are small."""
    factor = max(1, -(-_CELL // images.shape[-1]))
    large = images.clamp(0, 1).repeat_interleave(factor, -1).repeat_interleave(factor, -2).cpu()
    columns = min(columns, len(large))
    missing = -len(large) % columns
    # Each image gets its border above and to the left, the whole one below and to the right.
    framed = functional.pad(coloured(large), (_BORDER, 0, _BORDER, 0), value=_GREY)
    framed = torch.cat([framed, framed.new_full((missing, *framed.shape[1:]), _GREY)])
    rows = framed.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return functional.pad(rows, (0, _BORDER, 0, _BORDER), value=_GREY)


def captioned(image: Tensor, columns: Sequence[str], rows: Sequence[str] = ()) -> Tensor:
    """A grid (3, H, W) with a word above each column and left of each row; no words, no margin. (3, H', W').

    Words may hold formulas of one letter with an index, like $z_0$.
    """
    top, left = _LINE if columns else 0, 0
    if rows:
        left = round(_LETTER * max(len(re.sub(r"[$_{}]", "", word)) for word in rows)) + _LINE // 2
    height, width = image.shape[1:]
    figure = new_figure((left + width) / 100, (top + height) / 100)
    figure.set_layout_engine("none")
    figure.figimage(image.permute(1, 2, 0).numpy(), left, 0, origin="upper")
    for place, word in zip(_centres(len(columns), width), columns, strict=True):
        at = ((left + place) / (left + width), (height + top / 2) / (height + top))
        figure.text(*at, word, ha="center", va="center", fontsize=_FONT)
    for place, word in zip(_centres(len(rows), height), rows, strict=True):
        at = ((left - _LINE / 4) / (left + width), (height - place) / (height + top))
        figure.text(*at, word, ha="right", va="center", fontsize=_FONT)
    return rendered(figure)


def _centres(count: int, length: int) -> list[float]:
    """Middles of as many cells along a side of a grid, in pixels."""
    return [_BORDER / 2 + (length - _BORDER) * (cell + 0.5) / count for cell in range(count)]


def coloured(images: Tensor) -> Tensor:
    """Images (..., 1 or 3, H, W) with three channels, (..., 3, H, W)."""
    return images.expand(*images.shape[:-3], 3, *images.shape[-2:])


def tinted(images: Tensor, masked: Tensor) -> Tensor:
    """Images (..., 1 or 3, H, W) with what is masked (H, W) in one colour that is no grey, (..., 3, H, W)."""
    colour = torch.tensor([0.45, 0.6, 0.85], device=images.device).view(3, 1, 1)
    return torch.where(masked, colour, coloured(images))
