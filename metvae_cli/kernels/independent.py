"""Independent proposals: z' does not depend on z, which itself is the noise of the way back.

A draw z' from a density m, and the position z, change places, so log_correction = log m(z) - log m(z').
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metvae_cli.bijections import Bijection, TransformName
from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.base import Proposal, Proposed
from metvae_cli.kernels.flow import flow_context


class Independent(Proposal):
    """z' ~ q(z | x), the start of the path; one value of the path."""

    can_retrace = True

    def __init__(self) -> None:
        super().__init__()

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        """Draw from q. Both densities are those that the points carry."""
        del beta  # the move is the same for every target
        if path.draw_initial is None:
            raise ValueError("this path does not say how to draw from its start: build it with draw_initial")
        drawn = path.draw_initial((point.z.shape[0],)) if noise is None else noise
        proposed = path.evaluate(drawn, create_graph=create_graph)
        return Proposed(proposed, point.log_initial - proposed.log_initial, noise=drawn, noise_back=point.z)


class IndependentFlow(Proposal):
    """z' = T(u), u ~ N(0, I), for a flow T of its own; one value of the path.

    m is the density of T(u), in the coordinates of the path's frame (the frame's Jacobian is the same at z and at z').

    Args:
        latent_dim: D
        context_dim: of the path's context
        transform, layers, hidden: see `Bijection`
        condition_on_x: the flow is told what the path knows of x
    """

    can_retrace = True

    def __init__(
        self,
        latent_dim: int,
        context_dim: int,
        transform: TransformName = "realnvp",
        layers: int = 2,
        hidden: Sequence[int] = (64, 64),
        condition_on_x: bool = False,
    ) -> None:
        super().__init__()
        self.condition_on_x = condition_on_x
        self.bijection = Bijection(latent_dim, context_dim if condition_on_x else 0, transform, layers, hidden)

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        """Draw u, move it, and find the noise that would have led to z."""
        del beta  # the move is the same for every target
        context = flow_context(path, self.condition_on_x)
        noise = torch.randn_like(point.z) if noise is None else noise
        moved, log_det = self.bijection(noise, context)
        noise_back, log_det_back = self.bijection.inverse(path.to_frame(point.z), context)
        proposed = path.evaluate(path.from_frame(moved), create_graph=create_graph)
        density = 0.5 * (noise.square() - noise_back.square()).sum(-1)
        return Proposed(proposed, density + log_det_back + log_det, noise=noise, noise_back=noise_back)
