"""The reverse distribution r(a_1, ..., a_K | z_K, x) of the path bookkeeping: the decisions, guessed from z_K.

Of chains that stop where they are first rejected K + 1 sequences of decisions are left, and r(k | z_k, x) guesses the
number of moves. Any r gives a bound; the better it knows which decisions led to z_K, the tighter (MetFlow, arXiv
2002.12253). The best one, which `exact_reverse.py` has, is the posterior of the decisions itself.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from metvae_cli.densities import AnnealedPath
from metvae_cli.kernels.base import Kernel
from metvae_cli.models.nets import mlp
from metvae_cli.samplers.trajectory import Trajectory


class Reverse(nn.Module, ABC):
    """A distribution over what K steps may have decided.

    is_uniform: it guesses, which is dear where acceptance is near 0 or 1
    is_exact: it is the posterior of the decisions
    """

    is_uniform: bool = False
    is_exact: bool = False

    @abstractmethod
    def log_prob(self, trajectory: Trajectory, path: AnnealedPath, kernels: Sequence[Kernel], betas: Tensor) -> Tensor:
        """log r of the decisions of a trajectory, (S, B), made by these kernels at these inverse temperatures (K,)."""


class Uniform(Reverse):
    """r = 2^-K."""

    is_uniform = True

    def log_prob(self, trajectory: Trajectory, path: AnnealedPath, kernels: Sequence[Kernel], betas: Tensor) -> Tensor:
        """-K log 2 everywhere."""
        return torch.full_like(trajectory.final.log_final, -len(kernels) * math.log(2), requires_grad=False)


class UniformStops(Uniform):
    """r = 1 / (K + 1), of chains that stop where they are first rejected."""

    def log_prob(self, trajectory: Trajectory, path: AnnealedPath, kernels: Sequence[Kernel], betas: Tensor) -> Tensor:
        """-log (K + 1) everywhere."""
        return torch.full_like(trajectory.final.log_final, -math.log(len(kernels) + 1), requires_grad=False)


class Learned(Reverse):
    """r = prod_k Bernoulli(a_k; sigmoid(g_k(z_K, context))), g a perceptron learned through the bound.

    Args:
        latent_dim: D
        context_dim: C
        num_steps: K
        hidden: widths
        detach: no gradient through z_K and context, as in the code published with MetVAE; the
            gradient is biased then, the bound still one
    """

    def __init__(
        self, latent_dim: int, context_dim: int, num_steps: int, hidden: Sequence[int], *, detach: bool = False
    ) -> None:
        super().__init__()
        self.net = mlp(latent_dim + context_dim, hidden, num_steps, "gelu")
        self.detach = detach

    def log_prob(self, trajectory: Trajectory, path: AnnealedPath, kernels: Sequence[Kernel], betas: Tensor) -> Tensor:
        """Sum over steps of the log-probability of each decision."""
        assert path.context is not None
        return self.log_decisions(trajectory.info.accepted, trajectory.final.z, path.context)

    def log_decisions(self, accepted: Tensor, z: Tensor, context: Tensor) -> Tensor:
        """log r of decisions (K, S, B), given last positions (S, B, D) and what is known of x, (B, C); (S, B)."""
        logits = self.logits(z, context).movedim(-1, 0)
        return torch.where(accepted, logsigmoid(logits), logsigmoid(-logits)).sum(0)

    def logits(self, z: Tensor, context: Tensor) -> Tensor:
        """What the perceptron says at (S, B, D), knowing (B, C) of x."""
        known = torch.cat([z, context.expand(*z.shape[:2], -1)], -1)
        return self.net(known.detach() if self.detach else known)


class LearnedStops(Learned):
    """r = softmax_k(g(z, context)) of chains that stop where they are first rejected, after k = 0, ..., K moves at z.

    Args: as of `Learned`
    """

    def __init__(
        self, latent_dim: int, context_dim: int, num_steps: int, hidden: Sequence[int], *, detach: bool = False
    ) -> None:
        super().__init__(latent_dim, context_dim, num_steps + 1, hidden, detach=detach)

    def log_decisions(self, accepted: Tensor, z: Tensor, context: Tensor) -> Tensor:
        """log r of the number of moves that were accepted, (K, S, B), given the position (S, B, D) after the last."""
        return self.logits(z, context).log_softmax(-1).gather(-1, accepted.sum(0)[..., None]).squeeze(-1)
