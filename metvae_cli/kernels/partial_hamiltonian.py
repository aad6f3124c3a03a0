"""Hamiltonian proposals that keep part of their momentum (generalised HMC; the MetHMC kernel of MetVAE; UHA).

Before each move the momentum is refreshed, p <- rho p + sqrt(1 - rho^2) noise, which is not up for decision. Two
accounts of the noise give two bounds:

averaged  the noise is part of the chain, and (p, noise) -> (p', noise') is a rotation: it changes no weight. With
          unadjusted steps this is UHA, log w = log p - log q + sum_k [log N(p_k) - log N(refreshed p_k)].
fixed     the bound holds for each value of the noise (MetFlow, arXiv 2002.12253): the refreshment is then an affine map
          of the momentum with log |det| = D log rho, and both ends of the momentum carry their density.

Where the momentum turns: on `rejection` (Horowitz: an accepted move is gone on with), or on `acceptance` (the flip
comes before the leapfrog, as in the code published with MetVAE: an accepted move is next gone back, so that keeping
momentum buys little). Both leave the target invariant.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.base import Proposal, Proposed, Refreshed
from metvae_cli.kernels.hamiltonian import leapfrog, log_normal_gain
from metvae_cli.kernels.step_size import StepSize


class PartialHamiltonian(Proposal):
    """Leapfrog steps from a momentum that is partly kept.

    Args:
        step_size: of the leapfrog
        num_leapfrog: values and scores of the path per proposal
        persistence: rho, the share of the momentum that is kept, in (0, 1)
        learn_persistence: learn it through the bound
        noise: averaged or fixed, see the module's head
        turn: on rejection or acceptance, see the module's head

    Raises:
        ValueError: a number is out of range
    """

    needs_score = True
    can_retrace = True
    logit: Tensor

    def __init__(
        self,
        step_size: StepSize,
        num_leapfrog: int = 1,
        persistence: float = 0.5,
        learn_persistence: bool = False,
        noise: Literal["averaged", "fixed"] = "averaged",
        turn: Literal["rejection", "acceptance"] = "rejection",
    ) -> None:
        super().__init__()
        if num_leapfrog < 1:
            raise ValueError(f"num_leapfrog={num_leapfrog}: must be at least 1")
        if not 0 < persistence < 1:
            raise ValueError(
                f"persistence={persistence}: must lie between 0 and 1, both excluded (sampler=hmc draws it all afresh)"
            )
        self.step_size = step_size
        self.num_leapfrog = self.evaluations = num_leapfrog
        self.noise, self.turn = noise, turn
        self.fixes_noise = noise == "fixed"
        value = torch.tensor(math.log(persistence / (1 - persistence)))
        if learn_persistence:
            self.logit = nn.Parameter(value)
        else:
            self.register_buffer("logit", value)

    def refresh(self, point: Point) -> Refreshed:
        """Mix the momentum with noise; the first one is drawn from N(0, I)."""
        momentum = torch.randn_like(point.z) if point.momentum is None else point.momentum
        noise = torch.randn_like(point.z)
        rho, rest = self._shares()
        mixed = rho * momentum + rest * noise
        left = rest * momentum - rho * noise if self.noise == "averaged" else noise
        return Refreshed(point._replace(momentum=mixed), self._log_weight(momentum, mixed), left)

    def unrefresh(self, point: Point, noise: Tensor | None) -> Refreshed:
        """The momentum before: the mixing with averaged noise is an orthogonal map that undoes itself."""
        assert point.momentum is not None
        assert noise is not None
        rho, rest = self._shares()
        mixed = point.momentum
        momentum = rho * mixed + rest * noise if self.noise == "averaged" else (mixed - rest * noise) / rho
        return Refreshed(point._replace(momentum=momentum), self._log_weight(momentum, mixed))

    def _shares(self) -> tuple[Tensor, Tensor]:
        """rho and (1 - rho^2)^(1/2)."""
        rho = torch.sigmoid(self.logit)
        return rho, (1 - rho**2).sqrt()

    def _log_weight(self, momentum: Tensor, mixed: Tensor) -> Tensor | None:
        """log N(mixed) - log N(momentum) + D log rho where the noise is fixed; nothing where it is averaged."""
        if self.noise == "averaged":
            return None
        ends = 0.5 * (momentum.square() - mixed.square()).sum(-1)
        return ends + momentum.shape[-1] * torch.sigmoid(self.logit).log()

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        """Integrate from the refreshed momentum, turned first if it turns on acceptance. Draws nothing."""
        del noise
        assert point.momentum is not None
        momentum = point.momentum if self.turn == "rejection" else -point.momentum
        end, momentum_end = leapfrog(
            point, momentum, path, beta, self.step_size(), self.num_leapfrog, create_graph=create_graph
        )
        return Proposed(end._replace(momentum=momentum_end), log_normal_gain(momentum, momentum_end))

    def rejected(self, point: Point) -> Point:
        """The momentum turns on a rejection, unless it turned before the move."""
        if self.turn == "acceptance" or point.momentum is None:
            return point
        return point._replace(momentum=-point.momentum)
