"""Figures as images: matplotlib without a screen, imported when the first one is drawn."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches, of 100 pixels each."""
    from matplotlib.figure import Figure  # slow to import and not always needed

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def rendered(figure: "Figure") -> Tensor:
    """The figure as an image (3, H, W) in [0, 1]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
