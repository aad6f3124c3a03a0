"""Posteriors over two latent coordinates: the exact density beside draws of q_0 and of the chain's end."""

import torch
from torch import Tensor

from metvae_cli.evaluation.figures import new_figure, rendered
from metvae_cli.objectives.base import Model

_POINTS = 121
# Draws shown of each set.
_DOTS = 800


def window(draws: Tensor, margin: float = 0.35) -> tuple[Tensor, Tensor]:
    """Lower and upper corners, (2,), of a square that holds all but 1 per cent of the draws (N, 2), with a margin."""
    low, high = draws.quantile(0.005, 0), draws.quantile(0.995, 0)
    half = (0.5 + margin) * (high - low).max()
    return (low + high) / 2 - half, (low + high) / 2 + half


def density_on_grid(model: Model, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """p(z | x) of one datum x (1, *event) over a square, normalised on it, (points, points): rows are z_2."""
    axes = [torch.linspace(a.item(), b.item(), _POINTS, dtype=x.dtype) for a, b in zip(low, high, strict=True)]
    across, up = torch.meshgrid(*axes, indexing="xy")
    z = torch.stack([across, up], -1).reshape(-1, 1, 2).to(x.device)
    log_density = torch.cat([model.joint(x)(part) for part in z.split(2000)]).reshape(_POINTS, _POINTS).cpu()
    area = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    return (log_density - log_density.logsumexp((0, 1))).exp() / area


@torch.no_grad()
def posterior_densities(model: Model, x: Tensor, start: Tensor, end: Tensor, reference: Tensor) -> Tensor:
    """One row per datum x (B, *event): the exact density; over its contours the draws of q_0, q_K and the reference.

    start, end: (S, B, 2); reference: (N, B, 2). Returns an image (3, H, W).
    """
    rows, titles = len(x), ["exact p(z | x)", "q_0, the encoder", "q_K, end of the chain", "reference chain"]
    figure = new_figure(3 * len(titles), 3 * rows + 0.4)
    panels = figure.subplots(rows, len(titles), squeeze=False)
    for row in range(rows):
        sets = [_some(draws[:, row].cpu()) for draws in (start, end, reference)]
        low, high = window(torch.cat(sets))
        density = density_on_grid(model, x[row : row + 1], low, high).numpy()
        extent = (low[0].item(), high[0].item(), low[1].item(), high[1].item())
        panels[row, 0].imshow(density, origin="lower", extent=extent, cmap="viridis")
        for panel, draws in zip(panels[row, 1:], sets, strict=True):
            panel.contour(density, extent=extent, levels=6, linewidths=0.8, cmap="viridis")
            panel.scatter(*draws.T.numpy(), s=2, color="tab:red", alpha=0.4)
            panel.set_xlim(extent[:2])
            panel.set_ylim(extent[2:])
            panel.set_aspect("equal")
        panels[row, 0].set_ylabel(f"datum {row + 1}")
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, fontsize=10)
    return rendered(figure)


def _some(draws: Tensor) -> Tensor:
    """As many draws as can be told apart, from all over the chain."""
    return draws[:: max(1, len(draws) // _DOTS)]
