"""Acceptance rules: the probability of taking a proposal, from its log-ratio t.

Metropolis  alpha = min(1, e^t)        Barker  alpha = e^t / (1 + e^t)

Both satisfy alpha(t) = e^t alpha(-t), which is detailed balance. Barker never rejects or accepts for certain, which
is what a uniform reverse distribution over decisions needs for a tight path bound.
"""

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class Acceptance(StrEnum):
    """The rules by name."""

    METROPOLIS = "metropolis"
    BARKER = "barker"


def log_probabilities(rule: Acceptance, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """log alpha and log(1 - alpha), each of the ratio's shape.

    Where Metropolis accepts for certain the second is a harmless finite value: that decision is never taken, and
    -inf there would put NaN into the gradient.
    """
    if rule is Acceptance.BARKER:
        return logsigmoid(log_ratio), logsigmoid(-log_ratio)
    uncertain = can_reject(rule, log_ratio)
    return torch.where(uncertain, log_ratio, 0.0), log1mexp(torch.where(uncertain, log_ratio, -1.0))


def can_reject(rule: Acceptance, log_ratio: Tensor) -> Tensor:
    """Where a rejection has a positive probability; bool, same shape."""
    return torch.ones_like(log_ratio, dtype=torch.bool) if rule is Acceptance.BARKER else log_ratio < 0


def decide(log_accept: Tensor) -> Tensor:
    """Accept with probability e^log_accept. Bool, same shape. No gradient passes."""
    # A draw of 0 stands for all below the smallest other one: its logarithm, -inf, would accept whatever is proposed.
    draw = torch.rand_like(log_accept).clamp_min(torch.finfo(log_accept.dtype).eps / 4)
    return draw.log() < log_accept.detach()


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, accurate at both ends."""
    near_zero = x > -0.6931471805599453
    far = torch.where(near_zero, -1.0, x)  # log1p(-1) would put NaN into the gradient; the other branch never does
    return torch.where(near_zero, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(far)))
