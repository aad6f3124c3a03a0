"""What a proposal and a kernel are, and the one record that a step leaves.

A proposal is a bijection of (position, auxiliary noise), (z, u) -> (z', u'), and reports the single scalar

    log_correction = log rho(u') - log rho(u) + log |det d(z', u') / d(z, u)|

which is all that acceptance, annealed weights and the MetVAE bound need to know about it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.step_size import StepSize


class Proposed(NamedTuple):
    """point: where the proposal leads, evaluated. log_correction: (S, B), see the module's head.

    log_choice: (S, B) log-probability, with its graph, of a discrete draw that the proposal made with a learned
    probability; None where there was none.
    noise, noise_back: u and u', (S, B, D) or (S, B, 1); None where the move draws nothing, or does not undo itself.
    """

    point: Point
    log_correction: Tensor
    log_choice: Tensor | None = None
    noise: Tensor | None = None
    noise_back: Tensor | None = None


class Refreshed(NamedTuple):
    """point: after what happens before a move. log_weight: (S, B), what it adds to the log-weight; None is nothing.

    noise: (S, B, D), what `Proposal.unrefresh` needs to undo it; None where nothing was drawn.
    """

    point: Point
    log_weight: Tensor | None = None
    noise: Tensor | None = None


class StepNoise(NamedTuple):
    """The noise that would lead back over one step, given its decision: of the move, and of the refreshment."""

    move: Tensor | None
    refresh: Tensor | None


class StepInfo(NamedTuple):
    """What a loss, an adaptation or a plot needs of one step, each (S, B); of a trajectory, (K, S, B).

    log_reversal: increment of the log-weight with the decision summed out
    log_path: increment of the log-weight with the decision kept, a * log_correction - log_alpha
    log_alpha: log-probability of the decision taken, with its graph; 0 where none is taken
    log_choice: log-probability of the proposal's own discrete draws, with its graph; 0 where there were none
    accepted: bool
    accept_prob: probability of accepting by the step's rule; where none is taken, by a Metropolis test
    metropolis_prob: probability of accepting by a Metropolis test, whatever the rule; what step sizes are adapted to,
        since it alone tends to 1 for small steps (Barker's tends to 1/2)
    divergent: bool, the ratio was NaN or infinite and the chain stayed where it was
    noise: of the way back, for the exact reverse distribution; None in the record of a trajectory
    """

    log_reversal: Tensor
    log_path: Tensor
    log_alpha: Tensor
    log_choice: Tensor
    accepted: Tensor
    accept_prob: Tensor
    metropolis_prob: Tensor
    divergent: Tensor
    noise: StepNoise | None = None


class Proposal(nn.Module, ABC):
    """One move.

    needs_score: it reads the score of the points it visits
    evaluations: evaluations of the path per proposal
    is_reversible: accepting or rejecting it leaves the target invariant (the move undoes itself, up to signs)
    can_retrace: `propose` takes the noise of the way back and then leads back, so that a step can be undone
    fixes_noise: its increments hold for each value of some noise, so that decisions cannot be summed out
    draws_choice: it draws something discrete with a learned probability, and reports `Proposed.log_choice`
    is_deterministic: the move is a function of the position alone
    """

    needs_score: bool = False
    evaluations: int = 1
    is_reversible: bool = True
    can_retrace: bool = False
    fixes_noise: bool = False
    draws_choice: bool = False
    is_deterministic: bool = False

    def refresh(self, point: Point) -> Refreshed:
        """What happens before the move and is not up for decision; by default nothing."""
        return Refreshed(point)

    def unrefresh(self, point: Point, noise: Tensor | None) -> Refreshed:
        """The point before a refreshment that led to `point`, given the noise that it left.

        Its `log_weight` is what the refreshment added.
        """
        del noise
        return Refreshed(point)

    def rejected(self, point: Point) -> Point:
        """The state after a rejection of the move from `point`, by default unchanged; applied twice it changes nothing.

        Where the state turns on a rejection, an accepted move followed by such a turn undoes itself.
        """
        return point

    @abstractmethod
    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        """Draw the noise, or take the one that is given, move, and evaluate the path at the new position."""


class Kernel(nn.Module, ABC):
    """One Markov step built on a proposal. `is_adjusted`: it accepts or rejects, which keeps the target of a reversible
    proposal invariant.
    """

    is_adjusted: bool

    def __init__(self, proposal: Proposal) -> None:
        super().__init__()
        self.proposal = proposal

    @abstractmethod
    def step(self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool) -> tuple[Point, StepInfo]:
        """From one point to the next, with the record of what happened."""


def metropolis_probability(log_ratio: Tensor, finite: Tensor) -> Tensor:
    """min(1, e^t), without a graph, and 0 where the ratio t is not finite; (S, B)."""
    return torch.where(finite, log_ratio.detach().clamp(max=0.0).exp(), 0.0)


class LogRatio(NamedTuple):
    """What a test compares, each (S, B).

    ratio: log g_beta(z') - log g_beta(z) + log_correction; 0 where that is not finite
    finite: bool, where it is, z' included
    gain: log g_beta(z') - log g_beta(z)
    """

    ratio: Tensor
    finite: Tensor
    gain: Tensor


def log_ratio(point: Point, proposed: Proposed, path: AnnealedPath, beta: Beta) -> LogRatio:
    """Of a proposal from `point`."""
    gain = path.log_prob(proposed.point, beta) - path.log_prob(point, beta)
    raw = gain + proposed.log_correction
    # 0 times a sum is NaN where an entry of z' is not finite: one look at (S, B) in place of one at (S, B, D).
    finite = torch.isfinite(raw.detach() + 0 * proposed.point.z.detach().sum(-1))
    if torch.is_grad_enabled() and isinstance(beta, Tensor) and beta.requires_grad:
        # Its gradient would have 0 times a density that is infinite.
        known = point._replace(
            log_initial=torch.where(finite, proposed.point.log_initial, point.log_initial),
            log_final=torch.where(finite, proposed.point.log_final, point.log_final),
        )
        gain = path.log_prob(known, beta) - path.log_prob(point, beta)
        raw = gain + proposed.log_correction
    return LogRatio(torch.where(finite, raw, 0.0), finite, gain)


class ProposalFamily(ABC):
    """Makes the proposals of all K steps together, where they share something or know which step they are.

    A sampler's `_target_` may name such a class; its constructor may ask for `latent_dim`, `context_dim` (of
    `AnnealedPath.context`) and `num_steps`.
    """

    @abstractmethod
    def proposals(self, step_sizes: Sequence[StepSize]) -> list[Proposal]:
        """One proposal per step, given the step size of each."""
