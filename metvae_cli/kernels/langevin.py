"""Langevin proposals: the Euler step of the overdamped Langevin diffusion of g_beta.

    z' = z + h grad log g_beta(z) + sqrt(2 h) u,        u ~ N(0, I)                     (h is the step size)
    u' = (z - z' - h grad log g_beta(z')) / sqrt(2 h)   the noise that would lead back

(z, u) -> (z', u') preserves volume, so log_correction = log N(u') - log N(u). Accepted or rejected it is MALA; taken as
it is, ULA, and the weight is that of sequential importance sampling (Thin et al. 2021, arXiv 2106.15921, L-MCVAE).
"""

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.base import Proposal, Proposed
from metvae_cli.kernels.hamiltonian import log_normal_gain
from metvae_cli.kernels.step_size import StepSize


class Langevin(Proposal):
    """One Langevin move; one value and score of the path."""

    needs_score = True
    can_retrace = True

    def __init__(self, step_size: StepSize) -> None:
        super().__init__()
        self.step_size = step_size

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        """Move along the score with noise."""
        step_size = self.step_size()
        spread = (2 * step_size).sqrt()
        noise = torch.randn_like(point.z) if noise is None else noise
        score = path.score(point, beta)
        moved = path.shift(point.z, torch.addcmul(spread * noise, step_size, score))
        proposed = path.evaluate(moved, create_graph=create_graph)
        # z - z' is written out of the forward move: subtracting the positions would lose digits for small steps.
        noise_back = -noise - step_size / spread * (score + path.score(proposed, beta))
        return Proposed(proposed, log_normal_gain(noise, noise_back), noise=noise, noise_back=noise_back)
