"""The reverse distribution r(a_1, ..., a_K | z_K, x) of the path bookkeeping: the decisions, guessed from z_K.

Any r gives a bound; the better it knows which decisions led to z_K, the tighter (MetFlow, arXiv 2002.12253).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from metvae_cli.models.nets import mlp


class Reverse(nn.Module, ABC):
    """A distribution over K decisions. `is_uniform`: it guesses, which is dear where acceptance is near 0 or 1."""

    is_uniform: bool = False

    @abstractmethod
    def log_prob(self, accepted: Tensor, z: Tensor, context: Tensor) -> Tensor:
        """log r of decisions (K, S, B), bool, given last positions (S, B, D) and what is known of x (B, C): (S, B)."""


class Uniform(Reverse):
    """r = 2^-K."""

    is_uniform = True

    def log_prob(self, accepted: Tensor, z: Tensor, context: Tensor) -> Tensor:
        """-K log 2 everywhere."""
        return z.new_full(z.shape[:2], -len(accepted) * math.log(2))


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

    def log_prob(self, accepted: Tensor, z: Tensor, context: Tensor) -> Tensor:
        """Sum over steps of the log-probability of each decision."""
        known = torch.cat([z, context.expand(*z.shape[:2], -1)], -1)
        logits = self.net(known.detach() if self.detach else known).movedim(-1, 0)
        return torch.where(accepted, logsigmoid(logits), logsigmoid(-logits)).sum(0)
