"""Pictures of draws beside a density: histograms and dots over contours, and a chain's walk over them.

Every function returns one image (3, H, W) in [0, 1]. In more than two dimensions they show the first two coordinates;
contours, which would need an integral over the others, are left out then.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from metvae_cli.evaluation.figures import new_figure, rendered
from metvae_cli.evaluation.walk import Walk
from metvae_cli.targets.base import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GRID = 200
_BINS = 70
_MASSES = (0.99, 0.9, 0.5)
_MOST_DOTS = 2000
_MOST_COLUMNS = 4
_COLOURS = "viridis"


@torch.no_grad()
def density_grid(target: Target, size: int = _GRID) -> tuple[Tensor, Tensor, Tensor]:
    """Centres of cells along both axes of the window, (size,) each, and the density there, (size, size) [row is y].

    The density is scaled to a sum of 1 over the cells.
    """
    left, right, bottom, top = target.window
    at = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    x, y = left + (right - left) * at, bottom + (top - bottom) * at
    z = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).to(torch.get_default_dtype())  # a user's may know no other
    log_density = target.log_prob(z).double().nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    density = (log_density - log_density.max()).exp()
    return x, y, density / density.sum()


def contour_levels(density: Tensor) -> list[float]:
    """Densities above which 99, 90 and 50 percent of the mass lie, rising, all different, and none an extreme."""
    ordered = density.flatten().sort(descending=True).values
    above = ordered.cumsum(0)
    levels = {ordered[int((above < mass).sum())].item() for mass in _MASSES}
    lowest, highest = ordered[-1].item(), ordered[0].item()
    return sorted(level for level in levels if lowest < level < highest)


def histograms(target: Target, draws: Mapping[str, Tensor]) -> Tensor:
    """The density, and beside it a histogram of each set of draws (N, D), all on one scale of colours.

    In more than two dimensions there is no density, and the first set of draws gives the scale.
    """
    exact = target.dim == 2
    figure, panels = _panels(target, exact + len(draws))
    brightest: float | None = None
    if exact:
        share = density_grid(target, _BINS)[2].numpy()
        brightest = share.max()
        _show(panels[0], target, share, brightest)
        panels[0].set_title("target density", fontsize=10)
    sides = (target.window[:2], target.window[2:])
    for axes, (name, z) in zip(panels[exact:], draws.items(), strict=True):
        counts, _, _ = np.histogram2d(z[:, 0].numpy(), z[:, 1].numpy(), bins=_BINS, range=sides)
        brightest = brightest or counts.max() / len(z)
        _show(axes, target, counts.T / len(z), brightest)
        _contours(axes, target, "white", 0.4)
        axes.set_title(name, fontsize=10)
    return rendered(figure)


def _show(axes: "Axes", target: Target, share: "np.ndarray", brightest: float | None) -> None:
    axes.imshow(share, origin="lower", extent=target.window, aspect="auto", cmap=_COLOURS, vmin=0, vmax=brightest)


def dots(target: Target, draws: Mapping[str, Tensor]) -> Tensor:
    """One panel per set of draws (N, D): dots over the contours of the density."""
    figure, panels = _panels(target, len(draws))
    for axes, (name, z) in zip(panels, draws.items(), strict=True):
        shown = z[torch.linspace(0, len(z) - 1, min(len(z), _MOST_DOTS)).long()]
        axes.scatter(shown[:, 0].numpy(), shown[:, 1].numpy(), s=3, alpha=0.4, color="tab:blue", linewidths=0)
        _contours(axes, target, "0.4", 0.8)
        axes.set_title(f"{name}\n{_outside(z, target)}", fontsize=10)
    return rendered(figure)


def walk_picture(target: Target, walk: Walk) -> Tensor:
    """The path of a chain over the contours: accepted moves as a line with dots, rejected proposals as crosses."""
    figure = new_figure(6, 6)
    axes = figure.add_subplot()
    _contours(axes, target, "0.6", 1.0)
    across, up = walk.positions[:, 0].numpy(), walk.positions[:, 1].numpy()
    rejected = walk.proposals[~walk.accepted]
    count, taken = len(walk.accepted), int(walk.accepted.sum())
    for start, end in zip(walk.positions[:-1][~walk.accepted], rejected, strict=True):
        axes.plot([start[0], end[0]], [start[1], end[1]], color="tab:red", alpha=0.2, linewidth=0.7)
    axes.plot(across, up, "-o", color="tab:blue", markersize=3.5, linewidth=1.0, label=f"{taken} accepted moves")
    axes.scatter(
        rejected[:, 0].numpy(),
        rejected[:, 1].numpy(),
        marker="x",
        s=28,
        color="tab:red",
        linewidths=1.2,
        label=f"{count - taken} rejected proposals",
    )
    axes.plot(across[:1], up[:1], "s", color="black", markersize=7, label="start")
    axes.set_xlabel("$z_1$")
    axes.set_ylabel("$z_2$")
    shown = "contours around 50, 90 and 99 % of the mass" if target.dim == 2 else "the first two coordinates"
    axes.set_title(f"{count} steps of one chain; {shown}", fontsize=10)
    axes.legend(loc="upper left", fontsize=9)
    return rendered(figure)


def _panels(target: Target, count: int) -> tuple["Figure", list["Axes"]]:
    """A figure with `count` equal axes over the window of the target, in rows of at most four."""
    columns = min(count, _MOST_COLUMNS)
    rows = -(-count // columns)
    figure = new_figure(3.4 * columns, 3.7 * rows)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for unused in panels[count:]:
        unused.remove()
    for index, axes in enumerate(panels[:count]):
        axes.set_xlim(target.window.left, target.window.right)
        axes.set_ylim(target.window.bottom, target.window.top)
        axes.tick_params(labelsize=8, labelbottom=index + columns >= count)  # where no panel lies below
        axes.set_xlabel("$z_1$", fontsize=9)
        if index % columns == 0:
            axes.set_ylabel("$z_2$", fontsize=9)
    return figure, panels[:count]


def _contours(axes: "Axes", target: Target, colour: str, width: float) -> None:
    if target.dim == 2:
        x, y, density = density_grid(target)
        if levels := contour_levels(density):  # a uniform density has none
            axes.contour(x.numpy(), y.numpy(), density.numpy(), levels=levels, colors=colour, linewidths=width)


def _outside(z: Tensor, target: Target) -> str:
    """How many of the draws the window does not show."""
    left, right, bottom, top = target.window
    inside = (z[:, 0] > left) & (z[:, 0] < right) & (z[:, 1] > bottom) & (z[:, 1] < top)
    beyond = int((~inside).sum())
    return f"{beyond} of {len(z)} draws lie outside" if beyond else f"{len(z)} draws"
