"""Hamiltonian proposals: leapfrog steps of the Hamiltonian flow of -log g_beta(z) + |p|^2 / 2.

The momentum is drawn afresh for every proposal (full refresh) and is the auxiliary noise u of `kernels/base.py`. The
leapfrog followed by a change of sign of the momentum is an involution and preserves volume, so

    log_correction = log N(p') - log N(p).
"""

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.base import Proposal, Proposed
from metvae_cli.kernels.step_size import StepSize


class Hamiltonian(Proposal):
    """`num_leapfrog` leapfrog steps from a fresh momentum; `num_leapfrog` values and scores of the path.

    Raises:
        ValueError: num_leapfrog < 1
    """

    needs_score = True
    can_retrace = True

    def __init__(self, step_size: StepSize, num_leapfrog: int = 1) -> None:
        super().__init__()
        if num_leapfrog < 1:
            raise ValueError(f"num_leapfrog={num_leapfrog}: must be at least 1")
        self.step_size = step_size
        self.num_leapfrog = num_leapfrog
        self.evaluations = num_leapfrog

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        """Draw p ~ N(0, I) and integrate."""
        momentum = torch.randn_like(point.z) if noise is None else noise
        end, momentum_end = leapfrog(
            point, momentum, path, beta, self.step_size(), self.num_leapfrog, create_graph=create_graph
        )
        return Proposed(end, log_normal_gain(momentum, momentum_end), noise=momentum, noise_back=-momentum_end)


def leapfrog(
    point: Point,
    momentum: Tensor,
    path: AnnealedPath,
    beta: Beta,
    step_size: Tensor,
    num_steps: int,
    *,
    create_graph: bool,
) -> tuple[Point, Tensor]:
    """Velocity-Verlet integration with unit mass: half kick, drift, half kick.

    The score at the start is read off `point`, and adjacent half kicks share one score: `num_steps` evaluations.

    Returns:
        the last point, evaluated, and the momentum (S, B, D) there.
    """
    half = 0.5 * step_size
    for _ in range(num_steps):
        momentum = torch.addcmul(momentum, half, path.score(point, beta))
        point = path.evaluate(path.shift(point.z, step_size * momentum), create_graph=create_graph)
        momentum = torch.addcmul(momentum, half, path.score(point, beta))
    return point, momentum


def log_normal_gain(momentum: Tensor, momentum_end: Tensor) -> Tensor:
    """log N(momentum_end) - log N(momentum), of momenta (S, B, D); (S, B)."""
    return 0.5 * torch.linalg.vecdot(momentum - momentum_end, momentum + momentum_end)
