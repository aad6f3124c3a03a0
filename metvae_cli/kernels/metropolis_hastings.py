"""The Metropolis-Hastings step: the one file that accepts or rejects."""

from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Beta, Point, select
from metvae_cli.kernels.acceptance import Acceptance, can_reject, decide, log_probabilities
from metvae_cli.kernels.base import (
    Kernel,
    Proposal,
    Proposed,
    Refreshed,
    StepInfo,
    StepNoise,
    log_ratio,
    metropolis_probability,
)


class Attempt(NamedTuple):
    """A step before its decision: where it stands, where it would go, and what the test compares, (S, B).

    log_ratio, finite, gain: see `base.LogRatio`
    """

    start: Refreshed
    proposed: Proposed
    log_ratio: Tensor
    finite: Tensor
    gain: Tensor
    log_accept: Tensor
    log_reject: Tensor

    def without_graph(self) -> "Attempt":
        """The same test, whose probabilities are constants in the gradient."""
        compared = self.log_ratio, self.gain, self.log_accept, self.log_reject
        ratio, gain, accept, reject = (entry.detach() for entry in compared)
        return self._replace(log_ratio=ratio, gain=gain, log_accept=accept, log_reject=reject)


class Origin(NamedTuple):
    """Where a step may have come from, given one decision.

    increment: of the log-weight over that step, (S, B); possible: bool, the decision may have been taken
    """

    point: Point
    increment: Tensor
    possible: Tensor


class MetropolisHastings(Kernel):
    """Propose, then accept with the rule's probability of

        t = log g_beta(z') - log g_beta(z) + log_correction.

    A proposal whose ratio is NaN or infinite is rejected with probability one and counted as divergent.
    """

    is_adjusted = True

    def __init__(self, proposal: Proposal, acceptance: Acceptance) -> None:
        super().__init__(proposal)
        self.acceptance = Acceptance(acceptance)

    def step(self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool) -> tuple[Point, StepInfo]:
        """One step, invariant for g_beta if the proposal is reversible."""
        attempt = self.attempt(point, path, beta, create_graph=create_graph)
        return self.outcome(attempt, self.decide(attempt.log_accept))

    def decide(self, log_accept: Tensor) -> Tensor:
        """The decisions, (S, B) bool; a place of its own so that tests can impose them."""
        return decide(log_accept)

    def attempt(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Attempt:
        """Refresh, propose and test. noise: of the move, where it is not to be drawn here."""
        start = self.proposal.refresh(point)
        proposed = self.proposal.propose(start.point, path, beta, create_graph=create_graph, noise=noise)
        compared = log_ratio(start.point, proposed, path, beta)
        return Attempt(start, proposed, *compared, *log_probabilities(self.acceptance, compared.ratio))

    def outcome(self, attempt: Attempt, decision: Tensor) -> tuple[Point, StepInfo]:
        """The next point and the record, for decisions (S, B); what is not finite is rejected in any case."""
        accepted = decision & attempt.finite
        point = select(accepted, attempt.proposed.point, self.rejection(attempt))
        return point, self.record(attempt, accepted)

    def rejection(self, attempt: Attempt) -> Point:
        """Where a step ends that is rejected."""
        return self.proposal.rejected(attempt.start.point)

    def record(self, attempt: Attempt, accepted: Tensor) -> StepInfo:
        """The record of a step, accepted (S, B) only where its ratio is finite."""
        (_, log_refresh, noise), proposed, ratio, finite = attempt[:4]
        zero = torch.zeros_like(ratio)
        log_alpha = torch.where(accepted, attempt.log_accept, torch.where(finite, attempt.log_reject, 0.0))
        accept_prob = torch.where(finite, attempt.log_accept.detach().exp(), 0.0)
        by_metropolis = self.acceptance is Acceptance.METROPOLIS
        log_reversal = torch.where(accepted, -attempt.gain, 0.0)
        log_path = torch.where(accepted, proposed.log_correction, 0.0) - log_alpha
        return StepInfo(
            log_reversal=log_reversal if log_refresh is None else log_refresh + log_reversal,
            log_path=log_path if log_refresh is None else log_refresh + log_path,
            log_alpha=log_alpha,
            log_choice=zero if proposed.log_choice is None else proposed.log_choice,
            accepted=accepted,
            accept_prob=accept_prob,
            metropolis_prob=accept_prob if by_metropolis else metropolis_probability(ratio, finite),
            divergent=~finite,
            noise=StepNoise(_back(accepted, proposed), noise),
        )

    def can_reject(self, attempt: Attempt) -> Tensor:
        """Where a rejection has a positive probability, (S, B) bool."""
        return ~attempt.finite | can_reject(self.acceptance, attempt.log_ratio)

    def retrace(
        self, point: Point, noise: StepNoise, path: AnnealedPath, beta: Beta, *, create_graph: bool
    ) -> tuple[Origin, Origin]:
        """Where a step that ended at `point` came from if it was rejected, and if it was accepted.

        A move undoes itself (up to a turn of the momentum), so that one move, with the noise of the way back, gives
        the proposal that was rejected as well as the position that was left.
        """
        here = self.proposal.rejected(point)  # before the turn of a rejection, or the turn after an acceptance
        proposed = self.proposal.propose(here, path, beta, create_graph=create_graph, noise=noise.move)
        ratio, finite, _ = log_ratio(here, proposed, path, beta)
        zero = torch.zeros_like(ratio)
        _, log_reject = log_probabilities(self.acceptance, ratio)
        stayed = self._before(here, noise, torch.where(finite, -log_reject, zero))
        log_accept, _ = log_probabilities(self.acceptance, -ratio)
        there = select(finite, self.proposal.rejected(proposed.point), here)
        moved = self._before(there, noise, torch.where(finite, -proposed.log_correction - log_accept, zero))
        return (
            Origin(*stayed, possible=~finite | can_reject(self.acceptance, ratio)),
            Origin(*moved, possible=finite),
        )

    def _before(self, point: Point, noise: StepNoise, increment: Tensor) -> tuple[Point, Tensor]:
        """The point before the refreshment, and the increment with what that added."""
        before = self.proposal.unrefresh(point, noise.refresh)
        return before.point, increment if before.log_weight is None else increment + before.log_weight


def _back(accepted: Tensor, proposed: Proposed) -> Tensor | None:
    """The noise of the way back: u' where the move was made, u where it was not."""
    if proposed.noise is None or proposed.noise_back is None:
        return None
    return torch.where(accepted[..., None], proposed.noise_back, proposed.noise)
