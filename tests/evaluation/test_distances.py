"""Distances between draws, against their values for Gaussians."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metvae_cli.evaluation.distances import energy_distance, mmd, neighbour_kl


def normal(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_draws_of_one_law_are_at_no_distance_and_others_are(distance: Callable[[Tensor, Tensor], float]) -> None:
    same = [distance(normal(1000, 2, seed), normal(1000, 2, seed + 100)) for seed in range(20)]
    spread = torch.tensor(same).std().item()
    assert abs(sum(same) / 20) < 5 * spread / math.sqrt(20)
    assert distance(normal(1000, 2, 0), normal(1000, 2, 100) + 0.5) > 10 * spread
    assert distance(normal(1000, 2, 0), 1.5 * normal(1000, 2, 100)) > 5 * spread


def test_the_energy_distance_is_that_of_the_definition() -> None:
    """On a line it is twice the integral of the squared difference of the distribution functions."""
    first, second = normal(4000, 1, 0), normal(4000, 1, 1) + 1.0
    grid = torch.linspace(-8, 9, 20_001, dtype=torch.float64)
    gap = torch.special.ndtr(grid) - torch.special.ndtr(grid - 1.0)
    assert energy_distance(first, second) == pytest.approx(2 * torch.trapezoid(gap**2, grid).item(), rel=0.05)


def test_parts_add_up_to_the_whole() -> None:
    first, second = normal(5000, 2, 0), normal(100, 2, 1)
    pairs = torch.cdist(first, second).mean().item()
    own = torch.pdist(first).mean().item() + torch.pdist(second).mean().item()
    assert energy_distance(first, second) == pytest.approx(2 * pairs - own, rel=1e-9)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.0, 0.5), (0.5, 1.5)])
def test_the_divergence_of_gaussians(shift: float, scale: float) -> None:
    stretch = torch.tensor([[3.0, 0.0], [2.0, 0.1]], dtype=torch.float64)  # KL does not change under linear maps
    first, second = (scale * normal(8000, 2, 0) + shift) @ stretch.T, normal(8000, 2, 1) @ stretch.T
    exact = 2 * (0.5 * (scale**2 + shift**2 - 1) - math.log(scale))
    assert neighbour_kl(first, second) == pytest.approx(exact, abs=0.06)


def test_the_divergence_of_what_is_not_gaussian() -> None:
    """Two modes against one broad one, by quadrature."""
    near, grid = torch.where(torch.rand(8000) < 0.5, -1.5, 1.5)[:, None], torch.linspace(-9, 9, 20_001)
    first, second = near + 0.5 * normal(8000, 1, 3), 2 * normal(8000, 1, 4)
    modes = [torch.distributions.Normal(mode, 0.5).log_prob(grid) for mode in (-1.5, 1.5)]
    density = torch.logaddexp(*modes) - math.log(2)
    exact = torch.trapezoid(density.exp() * (density - torch.distributions.Normal(0, 2).log_prob(grid)), grid)
    assert neighbour_kl(first, second) == pytest.approx(exact.item(), abs=0.06)


@pytest.mark.parametrize(("dim", "count"), [(4, 1000), (20, 4000), (40, 4000)])
def test_draws_of_one_law_have_no_divergence_in_many_dimensions(dim: int, count: int) -> None:
    assert abs(neighbour_kl(normal(count, dim, 5), normal(2 * count, dim, 6))) < 0.06


def test_a_chain_that_stands_still_has_no_divergence() -> None:
    still = normal(1, 2, 0).expand(100, 2)
    assert math.isnan(neighbour_kl(still, normal(100, 2, 1)))
