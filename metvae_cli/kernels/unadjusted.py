"""The unadjusted step: every proposal is taken, and the log-weight pays for it."""

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Point, select
from metvae_cli.kernels.base import Kernel, StepInfo, log_ratio, metropolis_probability


class Unadjusted(Kernel):
    """Take the proposal. The weight's increment is log_correction (sequential importance sampling).

    `accept_prob` is what a Metropolis test would have given: it costs nothing and drives the step-size adaptation. A
    move to where a density is NaN or infinite is not made and is counted as divergent.
    """

    is_adjusted = False

    def step(self, point: Point, path: AnnealedPath, beta: Tensor, *, create_graph: bool) -> tuple[Point, StepInfo]:
        """One move."""
        point, log_refresh = self.proposal.refresh(point)
        proposed = self.proposal.propose(point, path, beta, create_graph=create_graph)
        ratio, finite = log_ratio(point, proposed, path, beta)
        zero = torch.zeros_like(ratio)
        increment = torch.where(finite, proposed.log_correction, zero)
        increment = increment if log_refresh is None else increment + log_refresh
        probability = metropolis_probability(ratio, finite)
        info = StepInfo(
            log_reversal=increment,
            log_path=increment,
            log_alpha=zero,
            log_choice=zero if proposed.log_choice is None else proposed.log_choice,
            accepted=finite,
            accept_prob=probability,
            metropolis_prob=probability,
            divergent=~finite,
        )
        return select(finite, proposed.point, self.proposal.rejected(point)), info
