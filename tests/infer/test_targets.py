"""Every target: its log-normalizer, its exact draws, its modes and its window, by quadrature and by exact tests."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from metvae_cli.errors import ConfigError
from metvae_cli.evaluation.density_pictures import contour_levels, density_grid
from metvae_cli.targets.base import Target
from tests.infer.shipped import NAMES, shipped

CELLS = 16


def sheared(target: Target, u: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates in which a funnel is no wider at one end, and the log-determinant of the way to them."""
    if type(target).__name__ != "Funnel":
        return u, torch.zeros(u.shape[:-1], dtype=u.dtype)
    return torch.stack([u[..., 0], u[..., 0].exp() * u[..., 1]], -1), u[..., 0]


def quadrature(target: Target, tilt: float = 0.0, size: int = 800) -> float:
    """log of the integral over the plane, far beyond the window. tilt: of the log-density along z_1, a mistake."""
    left, right, bottom, top = target.window
    if type(target).__name__ == "Funnel":
        bottom, top = -9.0, 9.0
    x = torch.linspace(1.6 * left - 0.6 * right, 1.6 * right - 0.6 * left, size, dtype=torch.float64)
    y = torch.linspace(1.6 * bottom - 0.6 * top, 1.6 * top - 0.6 * bottom, size, dtype=torch.float64)
    z, log_det = sheared(target, torch.stack(torch.meshgrid(x, y, indexing="ij"), -1))
    values = target.log_prob(z) + log_det + tilt * z[..., 0]
    return values.flatten().logsumexp(0).item() + math.log((x[1] - x[0]).item() * (y[1] - y[0]).item())


@pytest.mark.parametrize("name", NAMES)
def test_the_log_normalizer_is_the_integral(name: str) -> None:
    target = shipped(name)
    assert target.log_normalizer is not None
    assert quadrature(target) == pytest.approx(target.log_normalizer, abs=2e-4)
    assert abs(quadrature(target, tilt=0.1) - target.log_normalizer) > 2e-4  # a slightly wrong density is noticed


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gaussian", {"correlation": -0.3, "scale": 2.0}),
        ("two_modes", {"distance": 3.0, "scale": 0.7}),
        ("banana", {"correlation": -0.5, "stretch": 0.8, "bend": -1.0}),
        ("funnel", {"spread": 0.5}),
        ("ring", {"radius": 0.5, "width": 0.4}),
        ("ring", {"radius": 3.0, "width": 0.1}),
        ("eight_modes", {"radius": 4.0, "scale": 0.5}),
    ],
)
def test_the_log_normalizer_follows_the_keys(name: str, changes: dict[str, float]) -> None:
    target = shipped(name, **changes)
    assert target.log_normalizer is not None
    assert quadrature(target) == pytest.approx(target.log_normalizer, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "dim"), [("gaussian", 5), ("funnel", 4), ("eight_modes", 3), ("eight_modes", 20), ("eight_modes", 100)]
)
def test_the_log_normalizer_in_more_dimensions(name: str, dim: int) -> None:
    """E[m(z) / p~(z)] over exact draws z is 1 / Z for any normalised m that lies inside of p."""
    target = shipped(name, dim=dim)
    assert target.log_normalizer is not None
    z = exact(target, 20_000).double()
    assert z.shape == (20_000, dim)
    centre = torch.zeros(dim, dtype=torch.float64) if target.modes is None else target.modes.centres[0]
    scale = 0.5 if target.modes is None else 1.0
    inner = -0.5 * ((z - centre) / scale).square().sum(-1) - dim * (math.log(scale) + 0.5 * math.log(2 * math.pi))
    ratio = (inner - target.log_prob(z)).exp()
    estimate = -math.log(ratio.mean().item())
    error = (ratio.std() / ratio.mean()).item() / math.sqrt(len(z))
    assert error < 0.1
    assert abs(estimate - target.log_normalizer) < 5 * error + 1e-9


def exact(target: Target, count: int) -> Tensor:
    drawn = target.sample(count)
    assert drawn is not None
    return drawn


def cell_test(target: Target, draws: Tensor) -> float:
    """p-value of a chi-square test of draws (N, 2) against the density, over cells of the window and what is beyond."""
    fine = 60
    _, _, density = density_grid(target, CELLS * fine)
    inside = target.window
    expected = density.unflatten(0, (CELLS, fine)).unflatten(2, (CELLS, fine)).sum((1, 3)).flatten()
    column = ((draws[:, 0] - inside.left) / (inside.right - inside.left) * CELLS).floor().long()
    row = ((draws[:, 1] - inside.bottom) / (inside.top - inside.bottom) * CELLS).floor().long()
    seen = (column >= 0) & (column < CELLS) & (row >= 0) & (row < CELLS)
    observed = torch.bincount(row[seen] * CELLS + column[seen], minlength=CELLS**2).double()
    expected = expected * seen.sum()
    full = expected >= 8  # the rest is one cell
    pooled = torch.stack([observed[~full].sum(), expected[~full].sum()])
    statistic = ((observed - expected).square() / expected)[full].sum()
    cells = int(full.sum())
    if pooled[1] >= 8:
        statistic, cells = statistic + (pooled[0] - pooled[1]) ** 2 / pooled[1], cells + 1
    return float(stats.chi2.sf(statistic.item(), cells - 1))


@pytest.mark.parametrize("name", NAMES)
def test_exact_draws_follow_the_density(name: str) -> None:
    target = shipped(name)
    draws = exact(target, 40_000)
    assert cell_test(target, draws) > 1e-6
    width = target.window.right - target.window.left
    assert cell_test(target, draws + 0.02 * width) < 1e-6  # draws of a shifted density are noticed
    outside = ((draws[:, 0] < target.window.left) | (draws[:, 0] > target.window.right)).float().mean()
    assert outside < 0.005


@pytest.mark.parametrize("name", NAMES)
def test_densities_follow_shape_precision_and_gradient(name: str) -> None:
    target = shipped(name)
    for dtype in (torch.float32, torch.float64):
        z = torch.randn(5, 3, target.dim, dtype=dtype, requires_grad=True)
        value = target.log_prob(z)
        assert value.shape == (5, 3)
        assert value.dtype == dtype
        (gradient,) = torch.autograd.grad(value.sum(), z, create_graph=True)
        assert torch.isfinite(gradient).all()
        assert torch.autograd.grad(gradient.sum(), z)[0].isfinite().all()  # learned Langevin steps need it
    for place in (0.0, 50.0):
        z = torch.full((1, target.dim), place, requires_grad=True)
        (gradient,) = torch.autograd.grad(target.log_prob(z).sum(), z)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_starts_lie_all_over_the_window(name: str) -> None:
    target = shipped(name)
    start = target.spread_out(2000, candidates=1)
    left, right, bottom, top = target.window
    assert start[:, 0].min() >= left
    assert start[:, 0].max() <= right
    assert stats.kstest(((start[:, 0] - left) / (right - left)).numpy(), "uniform").pvalue > 1e-6
    assert stats.kstest(((start[:, 1] - bottom) / (top - bottom)).numpy(), "uniform").pvalue > 1e-6


def test_of_several_places_the_likeliest_is_a_start() -> None:
    target = shipped("funnel", dim=10)
    anywhere, chosen = target.spread_out(200, candidates=1), target.spread_out(200)
    assert target.log_prob(chosen).min() > target.log_prob(anywhere).min()
    assert target.log_prob(chosen).median() > target.log_prob(anywhere).median()
    modes = shipped("eight_modes").modes
    assert modes is not None
    nearest = torch.cdist(shipped("eight_modes").spread_out(400), modes.centres.float()).argmin(1)
    assert len(nearest.unique()) == 8


def test_contours_hold_their_share_of_the_mass() -> None:
    for name in NAMES:
        target = shipped(name)
        _, _, density = density_grid(target)
        held = [density[density >= level].sum().item() for level in contour_levels(density)]
        assert held == pytest.approx([0.99, 0.9, 0.5], abs=0.01)


@pytest.mark.parametrize("dim", [3, 8, 100])
def test_corners_are_eight_different_ones_of_the_seed(dim: int) -> None:
    first, second, other = (shipped("eight_modes", dim=dim, corner_seed=seed).modes for seed in (0, 0, 1))
    assert first is not None
    assert second is not None
    assert other is not None
    assert (first.centres.abs() == 4).all()
    assert len(first.centres.unique(dim=0)) == 8
    assert torch.equal(first.centres, second.centres)
    if dim > 3:
        assert not torch.equal(first.centres, other.centres)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("gaussian", {"correlation": 1.0}, "correlation=1.0"),
        ("gaussian", {"dim": 1}, "dim=1"),
        ("two_modes", {"scale": 0.0}, "scale=0.0"),
        ("eight_modes", {"dim": 101}, "dim=101"),
        ("eight_modes", {"corner_seed": -1}, "corner_seed=-1"),
        ("banana", {"bend": math.inf}, "bend=inf"),
        ("funnel", {"dim": 1}, "dim=1"),
        ("ring", {"width": -1.0}, "width=-1.0"),
        ("rezende2", {"energy": 5}, "energy=5"),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, changes: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=f"target.{said}: must"):
        shipped(name, **changes)


def test_the_published_energies() -> None:
    """Rezende and Mohamed, table 1, at a point inside of |z_1| <= 4."""
    z = torch.tensor([[0.7, -1.3]], dtype=torch.float64)
    w1 = math.sin(2 * math.pi * 0.7 / 4)
    w2 = 3 * math.exp(-0.5 * ((0.7 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + math.exp(-(0.7 - 1) / 0.3))

    def bump(value: float, width: float) -> float:
        return math.exp(-0.5 * (value / width) ** 2)

    norm = math.sqrt(0.7**2 + 1.3**2)
    energies: dict[str, Callable[[], float]] = {
        "rezende1": lambda: 0.5 * ((norm - 2) / 0.4) ** 2 - math.log(bump(0.7 - 2, 0.6) + bump(0.7 + 2, 0.6)),
        "rezende2": lambda: 0.5 * ((-1.3 - w1) / 0.4) ** 2,
        "rezende3": lambda: -math.log(bump(-1.3 - w1, 0.35) + bump(-1.3 - w1 + w2, 0.35)),
        "rezende4": lambda: -math.log(bump(-1.3 - w1, 0.4) + bump(-1.3 - w1 + w3, 0.35)),
    }
    for name, energy in energies.items():
        assert shipped(name).log_prob(z).item() == pytest.approx(-energy())
