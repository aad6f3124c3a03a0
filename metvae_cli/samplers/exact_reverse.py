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
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings, Origin
from metvae_cli.samplers.reverse import Reverse
from metvae_cli.samplers.trajectory import Trajectory

_NO_MASS = 1e4  # nats


class Exact(Reverse):
    """2^K - 1 moves per chain: one from each point where a history may have passed, for both decisions."""

    is_exact = True

    def log_prob(self, trajectory: Trajectory, path: AnnealedPath, kernels: Sequence[Kernel], betas: Tensor) -> Tensor:
        """log r of the decisions that were taken."""
        own = trajectory.info.log_path.sum(0) - trajectory.initial.log_initial
        return -own - _log_sum(trajectory, path, kernels, betas)


def _log_sum(trajectory: Trajectory, path: AnnealedPath, kernels: Sequence[Kernel], betas: Tensor) -> Tensor:
    """log sum_b p(x, z_K) / w_b over all histories b, (S, B)."""
    create_graph = torch.is_grad_enabled()
    points = trajectory.final
    increments = torch.zeros_like(points.log_final)  # of one history per row, from the step reached on; inf: impossible
    for kernel, beta, noise in reversed(list(zip(kernels, betas, trajectory.noise, strict=True))):
        assert isinstance(kernel, MetropolisHastings)
        assert noise is not None
        back = _for_rows(noise, len(increments))
        stayed, moved = kernel.retrace(points, back, path, beta, create_graph=create_graph)
        alive = moved.possible & (~stayed.possible | ~_hopeless(moved, stayed))
        points = concatenate(stayed.point, select(alive, moved.point, stayed.point))
        kept = torch.where(stayed.possible, increments + stayed.increment, torch.inf)
        increments = torch.cat([kept, torch.where(alive, increments + moved.increment, torch.inf)])
    log_masses = points.log_initial - increments
    return log_masses.unflatten(0, (-1, len(trajectory.final.z))).logsumexp(0)


def _hopeless(one: Origin, other: Origin) -> Tensor:
    """Where `one` has a mass beside that of `other` that no float holds: going on from there could only overflow."""
    masses = [(origin.point.log_initial - origin.increment).detach() for origin in (one, other)]
    return ~(masses[0] > masses[1] - _NO_MASS)


def _for_rows(noise: StepNoise, rows: int) -> StepNoise:
    """The noise of S chains for several histories of each, rows = (number of histories) * S."""
    return StepNoise(*(None if part is None else part.repeat(rows // len(part), 1, 1) for part in noise))
