"""One chain move by move: where it stood, where it would have gone, and whether it went."""

from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.samplers.chain import Sampler


class Walk(NamedTuple):
    """positions: (N + 1, D), the start first; proposals: (N, D); accepted: (N,) bool.

    The n-th move leads from positions[n] to positions[n + 1]: proposals[n] if accepted, else positions[n].
    """

    positions: Tensor
    proposals: Tensor
    accepted: Tensor


@torch.no_grad()
def record_walk(sampler: Sampler, path: AnnealedPath, start: Tensor, count: int) -> Walk:
    """`count` moves of one chain from `start` (D,): the sampler's kernels in turn, all at the end of the path."""
    sampler.eval()
    beta = torch.ones((), device=start.device)
    point = path.evaluate(start[None, None], create_graph=False)
    positions, proposals, accepted = [point.z[0, 0]], [], []
    for step in range(count):
        kernel = sampler.steps[step % sampler.num_steps]
        if isinstance(kernel, MetropolisHastings):
            attempt = kernel.attempt(point, path, beta, create_graph=False)
            proposed = attempt.proposed.point.z
            point, info = kernel.outcome(attempt, kernel.decide(attempt.log_accept))
        else:  # what an unadjusted step does not make is not known: it is shown where the chain stands
            point, info = kernel.step(point, path, beta, create_graph=False)
            proposed = point.z
        positions.append(point.z[0, 0])
        proposals.append(proposed[0, 0])
        accepted.append(info.accepted[0, 0])
    return Walk(torch.stack(positions).cpu(), torch.stack(proposals).cpu(), torch.stack(accepted).cpu())
