"""Exact draws stay exact under every adjusted kernel, and the same judge rejects wrong kernels.

60 000 exact draws of a target make 8 steps. Their Rosenblatt transform must then be uniform: Kolmogorov-Smirnov for
each coordinate and for the radius, at a family-wise false-alarm rate of 1e-6. Four targets are tested by default; four
more are left to the slow tests.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from metvae_cli.densities import AnnealedPath
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.base import Kernel
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.partial_hamiltonian import PartialHamiltonian
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.unadjusted import Unadjusted
from tests.kernels.cases import EVERY_CASE, EVERY_CASE_ID, AnyCase
from tests.targets import MORE_TARGETS, TARGETS, Correlated, FiveNormals, Target, normal_cdf, normal_log_prob

pytestmark = pytest.mark.usefixtures("double")

DRAWS = 60_000
STEPS = 8
FALSE_ALARM = 1e-6
RULES = list(Acceptance)


def run(kernel: Kernel, target: Target, z: Tensor, beta: float = 1.0) -> tuple[Tensor, float]:
    """Positions after 8 steps, and the mean acceptance."""

    def broad(position: Tensor) -> Tensor:
        return normal_log_prob(position, 0.0, 3.0).sum(-1)

    def draw_broad(shape: tuple[int, ...]) -> Tensor:
        return 3.0 * torch.randn(*shape, 1, target.dim)

    path = AnnealedPath(broad, target.log_prob, needs_score=kernel.proposal.needs_score, draw_initial=draw_broad)
    point = path.evaluate(z[:, None], create_graph=False)
    rates = []
    with torch.no_grad():
        for _ in range(STEPS):
            point, info = kernel.step(point, path, torch.tensor(beta), create_graph=False)
            rates.append(info.accept_prob.mean().item())
    return point.z[:, 0], sum(rates) / STEPS


def smallest_p_value(uniforms: Tensor) -> float:
    """Smallest Kolmogorov-Smirnov p-value over coordinates and radius, Bonferroni-corrected."""
    clipped = uniforms.clamp(1e-12, 1 - 1e-12)
    radius = torch.special.ndtri(clipped).square().sum(-1)
    columns = [*uniforms.T.numpy(), stats.chi2.cdf(radius.numpy(), uniforms.shape[1])]
    # Not Python's min, which takes any number for smaller than NaN.
    return float(np.min([stats.kstest(column, "uniform").pvalue for column in columns])) * len(columns)


ALL_TARGETS = (*TARGETS, *MORE_TARGETS)
PLANAR = tuple(target for target in ALL_TARGETS if target.dim == 2)


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.name)
def test_exact_draws_pass_and_scaled_ones_do_not(target: Target) -> None:
    draws = target.sample(4 * DRAWS)
    assert smallest_p_value(target.uniforms(draws)) > FALSE_ALARM
    assert smallest_p_value(target.uniforms(1.05 * draws)) < FALSE_ALARM


@pytest.mark.parametrize("target", PLANAR, ids=lambda target: target.name)
def test_densities_in_the_plane_are_normalised(target: Target) -> None:
    """The grid is as wide as the longest tail of a target, and as fine as its narrowest neck."""
    grid = torch.linspace(-60.0, 60.0, 2000)  # an even number of points: the ring has no density at the origin
    rows = grid.new_tensor([[first, 0.0] for first in grid]).split(50)
    second = torch.stack([torch.zeros_like(grid), grid], -1)
    mass = sum(target.log_prob(some[:, None] + second).exp().sum().item() for some in rows)
    assert mass * (grid[1] - grid[0]).item() ** 2 == pytest.approx(1.0, abs=1e-5)


def test_the_density_of_correlated_normals_is_that_of_torch() -> None:
    target = FiveNormals()
    z = 2 * torch.randn(100, 5)
    expected = torch.distributions.MultivariateNormal(target.mean, target.covariance).log_prob(z)
    assert torch.allclose(target.log_prob(z), expected)


def keeps(kernel: Kernel, target: Target) -> None:
    """Assert that exact draws stay exact, and that both branches were taken."""
    after, acceptance = run(kernel, target, target.sample(DRAWS))
    assert 0.05 < acceptance < 0.995
    assert smallest_p_value(target.uniforms(after)) > FALSE_ALARM


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", EVERY_CASE, ids=EVERY_CASE_ID)
def test_keeps_its_target(case: AnyCase, rule: Acceptance, target: Target) -> None:
    keeps(MetropolisHastings(case.proposal(target.dim), rule), target)


@pytest.mark.slow
@pytest.mark.parametrize("target", MORE_TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", EVERY_CASE, ids=EVERY_CASE_ID)
def test_keeps_more_targets(case: AnyCase, rule: Acceptance, target: Target) -> None:
    keeps(MetropolisHastings(case.proposal(target.dim), rule), target)


@pytest.mark.slow
@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("rule", RULES)
def test_partial_refreshment_keeps_every_target(rule: Acceptance, target: Target) -> None:
    keeps(MetropolisHastings(PartialHamiltonian(StepSize(0.8), 2, persistence=0.9), rule), target)


MUTANTS = [(case, name) for case in EVERY_CASE for name in case.mutants]


@pytest.mark.parametrize(("case", "mutant"), MUTANTS, ids=[f"{case.name}-{name}" for case, name in MUTANTS])
def test_wrong_proposals_are_rejected(case: AnyCase, mutant: str) -> None:
    target = TARGETS[1]
    kernel = MetropolisHastings(case.proposal(target.dim, mutant), Acceptance.METROPOLIS)
    after, _ = run(kernel, target, target.sample(DRAWS))
    assert smallest_p_value(target.uniforms(after)) < FALSE_ALARM


class Tempered(MetropolisHastings):
    """Decides by the square of the probability of accepting."""

    def decide(self, log_accept: Tensor) -> Tensor:
        return super().decide(2 * log_accept)


class SwappedBarker(MetropolisHastings):
    """Accepts with the probability of rejecting."""

    def decide(self, log_accept: Tensor) -> Tensor:
        return ~super().decide(log_accept)


class Always(MetropolisHastings):
    """Accepts everything."""

    def decide(self, log_accept: Tensor) -> Tensor:
        return torch.ones_like(log_accept, dtype=torch.bool)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [(Tempered, Acceptance.METROPOLIS), (SwappedBarker, Acceptance.BARKER), (Always, Acceptance.METROPOLIS)],
    ids=["tempered", "swapped_barker", "always"],
)
@pytest.mark.parametrize("case", EVERY_CASE, ids=EVERY_CASE_ID)
def test_wrong_decisions_are_rejected(case: AnyCase, wrong: type[MetropolisHastings], rule: Acceptance) -> None:
    target = TARGETS[1]
    after, _ = run(wrong(case.proposal(target.dim), rule), target, target.sample(DRAWS))
    assert smallest_p_value(target.uniforms(after)) < FALSE_ALARM


class Cooled(Target):
    """Between N(0, 3^2 I) and the correlated target the path's densities are Gaussian; here the one at beta = 1/2."""

    name, dim, beta = "cooled", 2, 0.5

    def __init__(self) -> None:
        rho = Correlated.rho
        precision = torch.linalg.inv(torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64))
        mixed = (1 - self.beta) * torch.eye(2, dtype=torch.float64) / 9 + self.beta * precision
        self.cholesky = torch.linalg.cholesky(torch.linalg.inv(mixed))

    def log_prob(self, z: Tensor) -> Tensor:
        return Correlated().log_prob(z)

    def sample(self, count: int) -> Tensor:
        return torch.randn(count, 2) @ self.cholesky.T

    def uniforms(self, z: Tensor) -> Tensor:
        return normal_cdf(torch.linalg.solve_triangular(self.cholesky, z.T, upper=False).T)


@pytest.mark.parametrize("case", EVERY_CASE, ids=EVERY_CASE_ID)
def test_keeps_the_density_inside_the_path(case: AnyCase) -> None:
    target = Cooled()
    kernel = MetropolisHastings(case.proposal(target.dim), Acceptance.METROPOLIS)
    after, _ = run(kernel, target, target.sample(DRAWS), beta=target.beta)
    assert smallest_p_value(target.uniforms(after)) > FALSE_ALARM
    after, _ = run(kernel, target, target.sample(DRAWS), beta=0.9)  # another inverse temperature must be noticed
    assert smallest_p_value(target.uniforms(after)) < FALSE_ALARM


@pytest.mark.parametrize("keeps", [True, False])
def test_unadjusted_langevin_keeps_its_own_gaussian_and_not_the_target(keeps: bool) -> None:
    """ULA with step h on N(0, 1) keeps N(0, 1 / (1 - h / 2))."""

    def standard_normal(z: Tensor) -> Tensor:
        return normal_log_prob(z, 0.0, 1.0).sum(-1)

    step = 0.35
    path = AnnealedPath(standard_normal, standard_normal, needs_score=True)
    kernel = Unadjusted(Langevin(StepSize(step)))
    scale = (1 - step / 2) ** -0.5 if keeps else 1.0
    point = path.evaluate(scale * torch.randn(DRAWS, 1, 1), create_graph=False)
    with torch.no_grad():
        for _ in range(STEPS):
            point, _ = kernel.step(point, path, torch.tensor(1.0), create_graph=False)
    p_value = stats.kstest(point.z.flatten().numpy() / scale, "norm").pvalue
    assert bool(p_value > FALSE_ALARM) == keeps
