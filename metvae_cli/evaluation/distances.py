"""Distances between two sets of draws, (N, D) and (M, D)."""

import math

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

_AT_A_TIME = 2048


def energy_distance(first: Tensor, second: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely and Rizzo 2013), the unbiased estimate: about 0 for the same law.

    Its square root is the distance; in units of the coordinates.
    """
    between = _mean_distance(first, second)
    return 2 * between - _mean_within(first) - _mean_within(second)


def mmd(first: Tensor, second: Tensor) -> float:
    """Squared maximum mean discrepancy (Gretton et al. 2012), the unbiased estimate: about 0 for the same law.

    The kernel is the sum of five Gaussians, of 1/4, 1/2, 1, 2 and 4 times the median distance in `second`.
    """
    sample = second[torch.linspace(0, len(second) - 1, min(len(second), 1000)).long()]
    distances = torch.pdist(sample.double())
    positive = distances[distances > 0]
    bandwidth = positive.median().item() if len(positive) else 1.0
    cross = _kernel_sum(first, second, bandwidth) / (len(first) * len(second))
    within = 0.0
    for own in (first, second):
        # The pairs of a draw with itself, 5 (one per Gaussian) each, are left out: that is what makes it unbiased.
        within += (_kernel_sum(own, own, bandwidth) - 5 * len(own)) / (len(own) * (len(own) - 1))
    return within - 2 * cross


def neighbour_kl(first: Tensor, second: Tensor, neighbours: int = 5, seed: int = 0) -> float:
    """KL(first || second) in nats from distances to nearest neighbours (Wang, Kulkarni and Verdu 2009):

        (D / N) sum_i log(nu_i / rho_i) + log(M / (N - 1)),

    rho_i and nu_i the distances of draw i to its k-th neighbour among the others and among those of `second`. Both sets
    are whitened by the covariance of `second`, which changes no KL. The bias of this estimate, large in tails and in
    many dimensions, is taken to be that for Gaussian draws with the same moments, where the divergence is known. NaN
    where a draw occurs more than `neighbours` times, as in chains that stand still.
    """
    own, other = _whitened(first, second)
    generator = torch.Generator().manual_seed(seed)
    like_own, like_other = _gaussian_like(own, generator), _gaussian_like(other, generator)
    # Moments of N draws are off: the KL of two Gaussians fitted to draws of one law is not 0 but about D (D + 3) / 4 N.
    dim = own.shape[1]
    known = _gaussian_kl(own, other) - dim * (dim + 3) / 4 * (1 / len(own) + 1 / len(other))
    bias = _plain_neighbour_kl(like_own, like_other, neighbours) - known
    return _plain_neighbour_kl(own, other, neighbours) - bias


def _plain_neighbour_kl(own: Tensor, other: Tensor, neighbours: int) -> float:
    rho = NearestNeighbors(n_neighbors=neighbours + 1).fit(own.numpy()).kneighbors(own.numpy())[0][:, -1]
    nu = NearestNeighbors(n_neighbors=neighbours).fit(other.numpy()).kneighbors(own.numpy())[0][:, -1]
    if (rho <= 0).any() or (nu <= 0).any():
        return math.nan
    count, dim = own.shape
    return float(dim * np.log(nu / rho).mean() + math.log(len(other) / (count - 1)))


def _whitened(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    own, other = first.detach().double().cpu(), second.detach().double().cpu()
    centre, factor = other.mean(0), _factor(other)
    solved = (torch.linalg.solve_triangular(factor, (draws - centre).T, upper=False).T for draws in (own, other))
    own, other = solved
    return own, other


def _factor(draws: Tensor) -> Tensor:
    """Cholesky factor of the covariance, with a ridge that lets draws in a subspace through."""
    dim = draws.shape[1]
    covariance = torch.cov(draws.T).reshape(dim, dim)
    ridge = 1e-10 * covariance.diagonal().mean().clamp(min=1e-10) * torch.eye(dim, dtype=draws.dtype)
    return torch.linalg.cholesky(covariance + ridge)


def _gaussian_like(draws: Tensor, generator: torch.Generator) -> Tensor:
    """As many draws of a Gaussian with the same mean and covariance."""
    noise = torch.randn(draws.shape, generator=generator, dtype=draws.dtype)
    return draws.mean(0) + noise @ _factor(draws).T


def _gaussian_kl(first: Tensor, second: Tensor) -> float:
    """KL between the Gaussians with the moments of two sets of draws."""
    laws = [MultivariateNormal(draws.mean(0), scale_tril=_factor(draws)) for draws in (first, second)]
    return kl_divergence(*laws).item()


def _mean_distance(first: Tensor, second: Tensor) -> float:
    total = sum(torch.cdist(part, second.double()).sum().item() for part in first.double().split(_AT_A_TIME))
    return total / (len(first) * len(second))


def _mean_within(draws: Tensor) -> float:
    """Mean distance of two different draws."""
    return _mean_distance(draws, draws) * len(draws) / (len(draws) - 1)


def _kernel_sum(first: Tensor, second: Tensor, bandwidth: float) -> float:
    total = 0.0
    for part in first.double().split(_AT_A_TIME):
        squared = torch.cdist(part, second.double()).square() / (2 * bandwidth**2)
        total += sum((-squared / factor**2).exp().sum().item() for factor in (0.25, 0.5, 1.0, 2.0, 4.0))
    return total
