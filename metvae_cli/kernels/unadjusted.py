"""The unadjusted step: every proposal is taken, and the log-weight pays for it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Beta, Point, select
from metvae_cli.kernels.base import (
    Kernel,
    Proposal,
    Proposed,
    Refreshed,
    StepInfo,
    log_ratio,
    metropolis_probability,
)


class Attempt(NamedTuple):
    """A step before it is made: where it stands, where it leads, and what a Metropolis test would compare, (S, B).

    log_ratio, finite: see `base.LogRatio`
    """

    start: Refreshed
    proposed: Proposed
    log_ratio: Tensor
    finite: Tensor


class Unadjusted(Kernel):
    """Take the proposal. The weight's increment is log_correction (sequential importance sampling).

    `accept_prob` is what a Metropolis test would have given: it costs nothing and drives the step-size adaptation. A
    move to where a density is NaN or infinite is not made and is counted as divergent. Where the way back of such a
    move does not exist either, nothing is added for it; moves that do not undo themselves have no such pairs, and
    there the weight is 0 (its logarithm -inf): to stay would count the mass where the chain stands twice.

    Args:
        proposal: the move
        skip_threshold: do not make a move whose ratio t has |log t| >= -log(threshold), and add nothing for it. The
            way back has the ratio 1 / t, so that moves are skipped in pairs and weights stay unbiased (the rule of
            arXiv 2106.15921, t <= threshold alone, does not). None makes every move.

    Raises:
        ValueError: the threshold does not lie inside (0, 1), or the move does not undo itself
    """

    is_adjusted = False

    def __init__(self, proposal: Proposal, skip_threshold: float | None = None) -> None:
        super().__init__(proposal)
        if skip_threshold is not None and not 0 < skip_threshold < 1:
            raise ValueError(f"skip_threshold={skip_threshold}: must lie between 0 and 1, both excluded, or be null")
        if skip_threshold is not None and not proposal.is_reversible:
            raise ValueError(
                f"skip_threshold={skip_threshold}: these moves do not undo themselves, so that they cannot be skipped "
                "in pairs; set skip_threshold=null"
            )
        self.skip_threshold = skip_threshold

    def step(self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool) -> tuple[Point, StepInfo]:
        """One move."""
        return self.outcome(self.attempt(point, path, beta, create_graph=create_graph))

    def attempt(self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool) -> Attempt:
        """Refresh, propose and compare."""
        start = self.proposal.refresh(point)
        proposed = self.proposal.propose(start.point, path, beta, create_graph=create_graph)
        with torch.no_grad():  # nothing of the test enters the weight
            ratio, finite, _ = log_ratio(start.point, proposed, path, beta)
        return Attempt(start, proposed, ratio, finite)

    def outcome(self, attempt: Attempt) -> tuple[Point, StepInfo]:
        """The next point and the record."""
        (point, log_refresh, _), proposed, ratio, finite = attempt
        taken = finite if self.skip_threshold is None else finite & (ratio.abs() < -math.log(self.skip_threshold))
        zero = torch.zeros_like(ratio)
        for_staying = 0.0 if self.proposal.is_reversible else -math.inf
        increment = torch.where(taken, proposed.log_correction, for_staying)
        increment = increment if log_refresh is None else increment + log_refresh
        probability = metropolis_probability(ratio, finite)
        info = StepInfo(
            log_reversal=increment,
            log_path=increment,
            log_alpha=zero,
            log_choice=zero if proposed.log_choice is None else proposed.log_choice,
            accepted=taken,
            accept_prob=probability,
            metropolis_prob=probability,
            divergent=~finite,
        )
        return select(taken, proposed.point, self.proposal.rejected(point)), info
