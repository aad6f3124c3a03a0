"""Long chains: the kernels of a sampler applied over and over to the end of the path."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath
from metvae_cli.kernels.adaptation import Adaptation, Outcome
from metvae_cli.samplers.chain import Sampler


class LongChains(NamedTuple):
    """draws: (N, S, B, D), one per round of K steps, S chains for each of B data.

    accept_prob: (S, B), mean over all steps of the kept rounds
    moved: (N, S, B) bool, some step of the round moved the chain
    divergent: share of steps whose ratio was not finite
    evaluations: of the path, for the kept rounds, per chain
    """

    draws: Tensor
    accept_prob: Tensor
    moved: Tensor
    divergent: float
    evaluations: int

    @property
    def by_chain(self) -> Tensor:
        """(S, N, B, D), as `convergence` reads them."""
        return self.draws.transpose(0, 1)


def can_run_long(sampler: Sampler) -> bool:
    """Whether the kernels may be applied over and over: each move undoes itself, so that there is a law to converge to.

    Of unadjusted kernels it is not the target, but nearer to it for shorter steps.
    """
    return sampler.num_steps > 0 and all(kernel.proposal.is_reversible for kernel in sampler.steps)


@torch.no_grad()
def run_long_chains(
    sampler: Sampler,
    path: AnnealedPath,
    start: Tensor,
    num_draws: int,
    warm_up: int = 0,
    adaptations: Sequence[Adaptation] = (),
    thin: int = 1,
    between: Callable[[int], None] = lambda done: None,
) -> LongChains:
    """Run the K kernels, all at beta = 1, in rounds; `sampler` is left in evaluation mode, its step sizes adapted.

    Args:
        sampler: of at least one step; its schedule is not used
        path: its end is the target
        start: (S, B, D)
        num_draws: N, draws kept
        warm_up: rounds before them, in which step sizes are adapted; afterwards they stay as they are
        adaptations: of the sampler, updated in the warm-up only
        thin: rounds per draw that is kept
        between: called with the number of rounds done, for progress and for stopping early
    """
    betas = torch.ones(sampler.num_steps)
    sampler.train(bool(adaptations))  # while it adapts, dual averaging uses its iterates and not yet their average
    point = path.evaluate(start, create_graph=False)
    # Room for all at once: too many are told before the first, and not when the memory is used up.
    draws = point.z.new_empty(num_draws, *point.z.shape)
    moved = torch.empty(num_draws, *start.shape[:2], dtype=torch.bool, device=start.device)
    for done in range(warm_up):
        between(done)
        trajectory = sampler.run(point, path, create_graph=False, betas=betas)
        point = trajectory.final
        outcome = Outcome(trajectory.info.metropolis_prob, point.z, trajectory.score_moments)
        for adaptation in adaptations:
            adaptation.update(outcome)
    sampler.eval()
    accept_prob, divergent, before = torch.zeros_like(point.log_final), 0.0, path.evaluations
    for kept in range(num_draws):
        any_move = torch.zeros_like(point.log_final, dtype=torch.bool)
        for extra in range(thin):
            between(warm_up + kept * thin + extra)
            trajectory = sampler.run(point, path, create_graph=False, betas=betas)
            point = trajectory.final
            accept_prob += trajectory.info.accept_prob.mean(0)
            divergent += trajectory.info.divergent.float().mean().item()
            any_move |= trajectory.info.accepted.any(0)
        draws[kept], moved[kept] = point.z, any_move
    rounds = num_draws * thin
    per_chain = (path.evaluations - before) // (start.shape[0] * start.shape[1])
    return LongChains(draws, accept_prob / rounds, moved, divergent / rounds, per_chain)
