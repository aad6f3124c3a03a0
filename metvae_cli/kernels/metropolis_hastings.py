"""The Metropolis-Hastings step: the one file that accepts or rejects."""

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Point, select
from metvae_cli.kernels.acceptance import Acceptance, decide, log_probabilities
from metvae_cli.kernels.base import Kernel, Proposal, StepInfo, log_ratio, metropolis_probability


class MetropolisHastings(Kernel):
    """Propose, then accept with the rule's probability of

        t = log g_beta(z') - log g_beta(z) + log_correction.

    A proposal whose ratio is NaN or infinite is rejected with probability one and counted as divergent.
    """

    is_adjusted = True

    def __init__(self, proposal: Proposal, acceptance: Acceptance) -> None:
        super().__init__(proposal)
        self.acceptance = Acceptance(acceptance)

    def step(self, point: Point, path: AnnealedPath, beta: Tensor, *, create_graph: bool) -> tuple[Point, StepInfo]:
        """One step, invariant for g_beta."""
        point, log_refresh = self.proposal.refresh(point)
        proposed = self.proposal.propose(point, path, beta, create_graph=create_graph)
        ratio, finite = log_ratio(point, proposed, path, beta)
        log_accept, log_reject = log_probabilities(self.acceptance, ratio)
        accepted = self.decide(log_accept) & finite
        zero = torch.zeros_like(ratio)
        log_alpha = torch.where(accepted, log_accept, torch.where(finite, log_reject, zero))
        change = path.log_prob(point, beta) - path.log_prob(proposed.point, beta)
        refreshed = zero if log_refresh is None else log_refresh
        info = StepInfo(
            log_reversal=refreshed + torch.where(accepted, change, zero),
            log_path=refreshed + torch.where(accepted, proposed.log_correction, zero) - log_alpha,
            log_alpha=log_alpha,
            log_choice=zero if proposed.log_choice is None else proposed.log_choice,
            accepted=accepted,
            accept_prob=torch.where(finite, log_accept.detach().exp(), zero),
            metropolis_prob=metropolis_probability(ratio, finite),
            divergent=~finite,
        )
        return select(accepted, proposed.point, self.proposal.rejected(point)), info

    def decide(self, log_accept: Tensor) -> Tensor:
        """The decisions, (S, B) bool; a place of its own so that decisions can be enumerated."""
        return decide(log_accept)
