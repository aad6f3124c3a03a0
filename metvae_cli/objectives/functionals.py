"""Functionals: from the S log-weights of a datum to one number that bounds log p(x)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_NEAR = 1e-2  # of alpha to 1

Functional = Callable[[Tensor, int], Tensor]


def mean(log_weights: Tensor, dim: int) -> Tensor:
    """E[log w], the evidence lower bound."""
    return log_weights.mean(dim)


def log_mean_exp(log_weights: Tensor, dim: int) -> Tensor:
    """log (1/S) sum_s w_s, the importance-weighted bound (Burda et al. 2016)."""
    return torch.logsumexp(log_weights, dim) - math.log(log_weights.shape[dim])


def renyi(alpha: float) -> Functional:
    """The variational Renyi bound, 1 / (1 - alpha) log (1/S) sum_s w_s^(1 - alpha) (Li and Turner 2016).

    alpha = 1 is the ELBO, 0 the importance-weighted bound, -inf the largest weight (VR-max). It falls with alpha; for
    alpha < 0 and finite S it bounds log p(x) on neither side.
    """
    if alpha == 1:
        return mean
    if alpha == -math.inf:
        return lambda log_weights, dim: log_weights.amax(dim)
    order = 1 - alpha
    if abs(order) < _NEAR:
        return lambda log_weights, dim: _near_the_mean(order, log_weights, dim)
    return lambda log_weights, dim: log_mean_exp(order * log_weights, dim) / order


def _near_the_mean(order: float, log_weights: Tensor, dim: int) -> Tensor:
    """The same for a small order, by which rounding is divided: 0 there is 0 here, exactly."""
    end = (log_weights.amax if order > 0 else log_weights.amin)(dim, keepdim=True).detach()
    return end.squeeze(dim) + torch.expm1(order * (log_weights - end)).mean(dim).log1p() / order


def without_each(functional: Functional, log_weights: Tensor) -> Tensor:
    """The functional of the other S - 1 samples, for each of the S: (S, B) -> (S, B). Needs S >= 2."""
    size = log_weights.shape[0]
    others = torch.tensor([[j for j in range(size) if j != i] for i in range(size)], device=log_weights.device)
    return functional(log_weights[others], 1)
