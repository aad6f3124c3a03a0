"""Gaussian random walk: z' = z + step_size * u."""

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.base import Proposal, Proposed
from metvae_cli.kernels.step_size import StepSize


class RandomWalk(Proposal):
    """z' = z + step_size * u with u ~ N(0, I); u' = -u, so log_correction = 0. Uses values only, no score."""

    can_retrace = True

    def __init__(self, step_size: StepSize) -> None:
        super().__init__()
        self.step_size = step_size

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        """One value of the path."""
        del beta  # the move is the same for every target
        noise = torch.randn_like(point.z) if noise is None else noise
        moved = path.shift(point.z, self.step_size() * noise)
        proposed = path.evaluate(moved, create_graph=create_graph)
        return Proposed(proposed, torch.zeros_like(point.log_final), noise=noise, noise_back=-noise)
