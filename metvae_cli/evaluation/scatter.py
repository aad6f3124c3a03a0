"""Points in the plane as a picture, in milliseconds: training draws one every few epochs, where matplotlib would take
a tenth of a second each and half of one to be imported.
"""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_SIDE, _FINE = 500, 2  # pixels, and how many times finer it is drawn, so that edges are smooth
_LEFT, _TOP, _RIGHT, _BOTTOM = 14, 30, 60, 24  # margins, in pixels
_RADIUS, _FONT = 2.5, 12
_COLOURS = (
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
    "#17becf",
)
_MOST_NAMED = 24  # classes in the legend


def scatter(plane: Tensor, labels: Tensor | None) -> Tensor:
    """Points (N, 2), coloured by class where there are classes (N,): (3, 500, 500) in [0, 1]."""
    picture = Image.new("RGB", (_SIDE * _FINE, _SIDE * _FINE), "white")
    draw = ImageDraw.Draw(picture)
    points = plane.double().cpu().numpy()
    low, high = _limits(points)
    for (x, y), colour in zip(_places(points, low, high), _colours(labels, len(points)), strict=True):
        reach = _RADIUS * _FINE
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
    _frame(draw, low, high)
    if labels is not None:
        _legend(draw, labels)
    small = picture.reduce(_FINE)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


def _limits(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of both axes, (2,) each."""
    finite = points[np.isfinite(points).all(1)]
    low, high = (finite.min(0), finite.max(0)) if len(finite) else (np.zeros(2), np.zeros(2))
    room = np.where(high > low, 0.03 * (high - low), 1.0)
    return low - room, high + room


def _places(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where points are drawn, (N, 2); what is not finite lies outside."""
    share = (points - low) / (high - low)
    across = _LEFT + share[:, 0] * (_SIDE - _LEFT - _RIGHT)
    down = _SIDE - _BOTTOM - share[:, 1] * (_SIDE - _TOP - _BOTTOM)
    return np.nan_to_num(np.stack([across, down], 1) * _FINE, nan=-100, posinf=-100, neginf=-100)


def _colours(labels: Tensor | None, count: int) -> list[str]:
    return [_COLOURS[0]] * count if labels is None else [_COLOURS[label % 10] for label in labels.tolist()]


def _frame(draw: ImageDraw.ImageDraw, low: np.ndarray, high: np.ndarray) -> None:
    """The title, the frame, and what its ends stand for."""
    right, bottom = _SIDE - _RIGHT, _SIDE - _BOTTOM
    draw.rectangle([edge * _FINE for edge in (_LEFT, _TOP, right, bottom)], outline="#888888", width=_FINE)
    _write(draw, (_LEFT, _TOP - 6), "encoder means, two principal axes", "ls")
    for place, value, anchor in (((_LEFT, bottom + 4), low[0], "la"), ((right, bottom + 4), high[0], "ra")):
        _write(draw, place, f"{value:.3g}", anchor)
    for place, value, anchor in (((right + 4, bottom), low[1], "ls"), ((right + 4, _TOP), high[1], "la")):
        _write(draw, place, f"{value:.3g}", anchor)


def _legend(draw: ImageDraw.ImageDraw, labels: Tensor) -> None:
    """Classes and their colours, to the right of the frame."""
    named = labels.unique().tolist()[:_MOST_NAMED]
    for row, label in enumerate(named):
        x, y = _SIDE - _RIGHT + 10, _TOP + 36 + 16 * row
        box = [edge * _FINE for edge in (x, y - 4, x + 8, y + 4)]
        draw.rectangle(box, fill=_COLOURS[label % 10])
        _write(draw, (x + 13, y), str(label), "lm")


def _write(draw: ImageDraw.ImageDraw, place: tuple[float, float], words: str, anchor: str) -> None:
    font = ImageFont.load_default(_FONT * _FINE)
    draw.text((place[0] * _FINE, place[1] * _FINE), words, fill="black", font=font, anchor=anchor)
