"""The best reverse distribution: the posterior of the decisions given where they led.

All that is known at the end of a chain is e = (z_K, the noise of the way back over each step). Each history b of
decisions could have led there from one start only, which K inverse moves find, so that

    r(b | e) = m(e, b) / sum_b' m(e, b'),        m(e, b) = p(e) / w_b,        log w = -log sum_b 1 / w_b

where w_b is the weight that history b has without r, and p(e) is what the bound's target says of e. The bound is then
as tight as the chain allows; in particular E[w] = p(x) for Metropolis decisions too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, concatenate, select
from metvae_cli.kernels.base import Kernel, StepNoise
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.samplers.reverse import Reverse
from metvae_cli.samplers.trajectory import Trajectory

_OVERFLOWS = -1e12  # nats: a log-density from where one more move may lead to numbers that no float holds


class Exact(Reverse):
    """2^K - 1 moves per chain: one from each point where a history may have passed, for both decisions."""

    is_exact = True

    def log_prob(self, trajectory: Trajectory, path: AnnealedPath, kernels: Sequence[Kernel], betas: Tensor) -> Tensor:
        """log r of the decisions that were taken."""
        own = trajectory.info.log_path.sum(0) - trajectory.initial.log_initial
        return -own - _log_sum(trajectory, -own, path, kernels, betas)


def _log_sum(
    trajectory: Trajectory, own: Tensor, path: AnnealedPath, kernels: Sequence[Kernel], betas: Tensor
) -> Tensor:
    """log sum_b p(x, z_K) / w_b over all histories b, (S, B). `own`: log p(x, z_K) / w of the one that was taken."""
    create_graph = torch.is_grad_enabled()
    points = trajectory.final
    increments = torch.zeros_like(points.log_final)  # of one history per row, from the step reached on; inf: impossible
    taken = torch.ones_like(increments, dtype=torch.bool)
    steps = zip(kernels, betas, trajectory.noise, trajectory.info.accepted, strict=True)
    for kernel, beta, noise, accepted in reversed(list(steps)):
        assert isinstance(kernel, MetropolisHastings)
        assert noise is not None
        back = _for_rows(noise, len(increments))
        stayed, moved = kernel.retrace(points, back, path, beta, create_graph=create_graph)
        alive = moved.possible & (moved.point.log_initial > _OVERFLOWS) & (moved.increment < -_OVERFLOWS)
        points = concatenate(stayed.point, select(alive, moved.point, stayed.point))
        kept = torch.where(stayed.possible, increments + stayed.increment, torch.inf)
        increments = torch.cat([kept, torch.where(alive, increments + moved.increment, torch.inf)])
        accepted = accepted.repeat(len(taken) // len(accepted), 1)
        taken = torch.cat([taken & ~accepted, taken & accepted])
    # The history that was taken is known, and is not rounded on its way back: r is at most 1 whatever the floats do.
    log_masses = torch.where(taken, own.repeat(len(taken) // len(own), 1), points.log_initial - increments)
    return log_masses.unflatten(0, (-1, len(trajectory.final.z))).logsumexp(0)


def _for_rows(noise: StepNoise, rows: int) -> StepNoise:
    """The noise of S chains for several histories of each, rows = (number of histories) * S."""
    return StepNoise(*(None if part is None else part.repeat(rows // len(part), 1, 1) for part in noise))
