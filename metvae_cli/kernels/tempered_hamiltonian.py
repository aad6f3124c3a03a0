"""Hamiltonian proposals of one momentum, cooled along the chain: the Hamiltonian VAE (Caterini et al. 2018).

    p_0 ~ N(0, T_0 I),      step k: leapfrog, then p <- alpha_k p,      prod_k alpha_k = T_0^(-1/2)

Nothing is accepted or rejected and nothing is drawn after p_0, so the chain is one deterministic map of (z_0, p_0) with
log |det| = D sum_k log alpha_k, and log w = log p(x, z_K) + log N(p_K) - log q(z_0 | x) - log N(p_0; 0, T_0 I) + that.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.base import Proposal, ProposalFamily, Proposed, Refreshed
from metvae_cli.kernels.hamiltonian import leapfrog
from metvae_cli.kernels.step_size import StepSize

_INITIAL_TEMPERATURE = 1.5


class Tempering(nn.Module):
    """T_0 and the factors alpha_1, ..., alpha_K, shared by the steps of a chain.

    fixed: T_k = (1 - T_0) k^2 / K^2 + T_0, one learned T_0 > 1, alpha_k = (T_k / T_(k-1))^(1/2)
    free: each alpha_k in (0, 1) is learned, and T_0 = prod alpha_k^(-2)
    none: T_0 = 1
    """

    def __init__(self, kind: Literal["fixed", "free", "none"], num_steps: int, initial: float) -> None:
        super().__init__()
        self.kind, self.num_steps = kind, num_steps
        if kind == "fixed":
            self.raw = nn.Parameter(torch.tensor(math.log(math.expm1(initial - 1))))
        elif kind == "free":
            self.raw = nn.Parameter(torch.full((num_steps,), math.log(0.9 / 0.1)))

    def forward(self) -> tuple[Tensor, Tensor]:
        """log T_0, (), and log alpha_k, (K,)."""
        if self.kind == "none":
            return torch.zeros(()), torch.zeros(self.num_steps)
        if self.kind == "free":
            log_alpha = nn.functional.logsigmoid(self.raw)
            return -2 * log_alpha.sum(), log_alpha
        initial = 1 + softplus(self.raw)
        steps = torch.arange(self.num_steps + 1, device=self.raw.device) / self.num_steps
        log_temperature = ((1 - initial) * steps**2 + initial).log()
        return log_temperature[0], 0.5 * log_temperature.diff()


class TemperedHamiltonian(ProposalFamily):
    """The K steps of a Hamiltonian VAE.

    Args:
        num_steps: K
        num_leapfrog: leapfrogs per step
        tempering: fixed, free or none
        initial_temperature: starting value of T_0 for fixed tempering, above 1

    Raises:
        ValueError: a number is out of range
    """

    def __init__(
        self,
        num_steps: int,
        num_leapfrog: int = 1,
        tempering: Literal["fixed", "free", "none"] = "fixed",
        initial_temperature: float = _INITIAL_TEMPERATURE,
    ) -> None:
        if num_leapfrog < 1:
            raise ValueError(f"num_leapfrog={num_leapfrog}: must be at least 1")
        if not 1 < initial_temperature < math.inf:
            raise ValueError(f"initial_temperature={initial_temperature}: must be above 1 and finite")
        if initial_temperature != _INITIAL_TEMPERATURE and tempering != "fixed":
            raise ValueError(
                f"initial_temperature={initial_temperature}: is where tempering=fixed starts, and "
                f"tempering={tempering} does not use it; leave it at {_INITIAL_TEMPERATURE}, or set tempering=fixed"
            )
        self.num_leapfrog = num_leapfrog
        self.tempering = Tempering(tempering, num_steps, initial_temperature)

    def proposals(self, step_sizes: Sequence[StepSize]) -> list[Proposal]:
        """One per step, sharing the tempering."""
        return [
            TemperedStep(step_size, self.num_leapfrog, self.tempering, index)
            for index, step_size in enumerate(step_sizes)
        ]


class TemperedStep(Proposal):
    """Step `index` of the chain: leapfrog, then cool. The first one draws the momentum."""

    needs_score = True
    is_reversible = False

    def __init__(self, step_size: StepSize, num_leapfrog: int, tempering: Tempering, index: int) -> None:
        super().__init__()
        self.step_size = step_size
        self.num_leapfrog = self.evaluations = num_leapfrog
        self.tempering = tempering
        self.index = index

    def refresh(self, point: Point) -> Refreshed:
        """Draw p_0 = T_0^(1/2) e with e ~ N(0, I) at the start; afterwards nothing."""
        if point.momentum is not None:
            return Refreshed(point)
        noise = torch.randn_like(point.z)
        log_initial, _ = self.tempering()
        momentum = (0.5 * log_initial).exp() * noise
        log_ratio = 0.5 * (noise.square() - momentum.square()).sum(-1)
        return Refreshed(point._replace(momentum=momentum), log_ratio + 0.5 * noise.shape[-1] * log_initial)

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        """Integrate and cool. Draws nothing."""
        del noise
        assert point.momentum is not None
        end, moved = leapfrog(
            point, point.momentum, path, beta, self.step_size(), self.num_leapfrog, create_graph=create_graph
        )
        log_alpha = self.tempering()[1][self.index]
        cooled = log_alpha.exp() * moved
        log_ratio = 0.5 * (point.momentum.square() - cooled.square()).sum(-1)
        return Proposed(end._replace(momentum=cooled), log_ratio + moved.shape[-1] * log_alpha)
