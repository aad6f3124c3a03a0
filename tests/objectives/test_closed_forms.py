"""Bounds of linear-Gaussian models against their exact values, in 1, 2 and 5 dimensions.

Where every move is an affine map of Gaussian noise, the log-weight is a quadratic function of it, and its mean follows
from means and covariances alone. The package's mean is taken over the 2n points of a cubature rule that is exact for
quadratic functions of n normals: both sides are free of sampling error. The importance-weighted bound, which is no
quadratic, is drawn, and compared with E log X = int (e^-t - E e^(-t X)) / t dt (Frullani).
"""

import math
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from metvae_cli.kernels.base import Proposal
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.partial_hamiltonian import PartialHamiltonian
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.tempered_hamiltonian import TemperedHamiltonian
from metvae_cli.objectives import functionals
from metvae_cli.objectives.weights import log_weights, make_path
from metvae_cli.samplers.assembly import make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler

pytestmark = pytest.mark.usefixtures("double")
SCALE, LOG_TWO_PI = 0.8, math.log(2 * math.pi)
NUM_STEPS, NUM_LEAPFROG = 3, 2
STEP, RHO, TEMPERATURE = 0.15, 0.6, 2.0


@dataclass
class GaussianModel:
    """z ~ N(0, I_d), x | z ~ N(W z + b, s^2 I); q = N(mean, cholesky cholesky^T), the posterior moved and widened."""

    dim: int
    shift: float = 0.3
    widen: float = 1.3

    def __post_init__(self) -> None:
        source = torch.Generator().manual_seed(self.dim)
        self.weight = torch.randn(self.dim + 1, self.dim, generator=source)
        self.offset, x = torch.randn(2, self.dim + 1, generator=source)
        self.x = x[None]
        self.precision = torch.eye(self.dim) + self.weight.T @ self.weight / SCALE**2
        covariance = torch.linalg.inv(self.precision)
        self.mean = covariance @ self.weight.T @ (x - self.offset) / SCALE**2 + self.shift
        self.cholesky = self.widen * torch.linalg.cholesky(covariance)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        return MultivariateNormal(self.mean[None], scale_tril=self.cholesky)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> Any:
        def log_density(z: Tensor) -> Tensor:
            likelihood = Normal(z @ self.weight.T + self.offset, SCALE).log_prob(x).sum(-1)
            return Normal(0.0, 1.0).log_prob(z).sum(-1) + likelihood

        return log_density

    def log_evidence(self) -> Tensor:
        covariance = self.weight @ self.weight.T + SCALE**2 * torch.eye(self.dim + 1)
        return MultivariateNormal(self.offset, covariance).log_prob(self.x)[0]


class Affine:
    """The random vector A e + c, e ~ N(0, I_n)."""

    def __init__(self, matrix: Tensor, constant: Tensor) -> None:
        self.matrix, self.constant = matrix, constant

    def __add__(self, other: "Affine") -> "Affine":
        return Affine(self.matrix + other.matrix, self.constant + other.constant)

    def __rmul__(self, factor: float) -> "Affine":
        return Affine(factor * self.matrix, factor * self.constant)

    def then(self, matrix: Tensor, constant: Tensor | float = 0.0) -> "Affine":
        return Affine(matrix @ self.matrix, matrix @ self.constant + constant)

    def mean_square(self) -> Tensor:
        """E |A e + c|^2."""
        return self.matrix.square().sum() + self.constant.square().sum()


class Exact:
    """Means of everything that a log-weight is made of, for noise vectors e_0, ..., e_m of D normals each."""

    def __init__(self, model: GaussianModel, num_noises: int) -> None:
        self.model, dim = model, model.dim
        blocks = torch.eye(num_noises * dim).split(dim)
        self.noises = [Affine(block, torch.zeros(dim)) for block in blocks]
        self.start = self.noises[0].then(model.cholesky, model.mean)

    def score(self, z: Affine, beta: float) -> Affine:
        model, inverse = self.model, torch.cholesky_inverse(self.model.cholesky)
        to_q = z.then(-inverse, inverse @ model.mean)
        to_p = z.then(-model.precision, model.weight.T @ (model.x[0] - model.offset) / SCALE**2)
        return (1 - beta) * to_q + beta * to_p

    def log_joint(self, z: Affine) -> Tensor:
        model = self.model
        residual = z.then(-model.weight / SCALE, (model.x[0] - model.offset) / SCALE)
        normals = 2 * model.dim + 1
        constant = 0.5 * normals * LOG_TWO_PI + (model.dim + 1) * math.log(SCALE)
        return -0.5 * (z.mean_square() + residual.mean_square()) - constant

    def ends(self, last: Affine) -> Tensor:
        """E log p(x, z_K) - E log q(z_0)."""
        log_determinant = self.model.cholesky.diagonal().log().sum()
        entropy = 0.5 * self.model.dim * (1 + LOG_TWO_PI) + log_determinant
        return self.log_joint(last) + entropy

    def leapfrogs(self, z: Affine, momentum: Affine, beta: float) -> tuple[Affine, Affine]:
        for _ in range(NUM_LEAPFROG):
            momentum = momentum + (STEP / 2) * self.score(z, beta)
            z = z + STEP * momentum
            momentum = momentum + (STEP / 2) * self.score(z, beta)
        return z, momentum


def langevin(model: GaussianModel, betas: list[float]) -> Tensor:
    """L-MCVAE: sequential importance sampling with unadjusted Langevin steps."""
    exact = Exact(model, 1 + NUM_STEPS)
    z, total = exact.start, torch.zeros(())
    for beta, noise in zip(betas, exact.noises[1:], strict=True):
        moved = z + STEP * exact.score(z, beta) + (2 * STEP) ** 0.5 * noise
        back = (2 * STEP) ** -0.5 * (z + (-1) * moved + (-STEP) * exact.score(moved, beta))
        total, z = total + 0.5 * (noise.mean_square() - back.mean_square()), moved
    return exact.ends(z) + total


def hamiltonian(model: GaussianModel, betas: list[float]) -> Tensor:
    """The same with leapfrogs from fresh momenta."""
    exact = Exact(model, 1 + NUM_STEPS)
    z, total = exact.start, torch.zeros(())
    for beta, momentum in zip(betas, exact.noises[1:], strict=True):
        z, end = exact.leapfrogs(z, momentum, beta)
        total = total + 0.5 * (momentum.mean_square() - end.mean_square())
    return exact.ends(z) + total


def uncorrected(model: GaussianModel, betas: list[float]) -> Tensor:
    """UHA: partly refreshed momenta."""
    exact = Exact(model, 2 + NUM_STEPS)
    z, momentum, total = exact.start, exact.noises[1], torch.zeros(())
    for beta, noise in zip(betas, exact.noises[2:], strict=True):
        mixed = RHO * momentum + (1 - RHO**2) ** 0.5 * noise
        z, momentum = exact.leapfrogs(z, mixed, beta)
        total = total + 0.5 * (mixed.mean_square() - momentum.mean_square())
    return exact.ends(z) + total


def hamiltonian_vae(model: GaussianModel, betas: list[float]) -> Tensor:
    """HVAE: E[log p(x, z_K) + log N(p_K) - log q(z_0) - log N(p_0; 0, T_0)] + D sum log alpha, T_k quadratic in k."""
    exact = Exact(model, 2)
    z, momentum = exact.start, TEMPERATURE**0.5 * exact.noises[1]
    temperatures = [(1 - TEMPERATURE) * k**2 / NUM_STEPS**2 + TEMPERATURE for k in range(NUM_STEPS + 1)]
    log_jacobian = 0.0
    for k, beta in enumerate(betas):
        z, momentum = exact.leapfrogs(z, momentum, beta)
        cooling = (temperatures[k + 1] / temperatures[k]) ** 0.5
        momentum, log_jacobian = cooling * momentum, log_jacobian + model.dim * math.log(cooling)
    first = 0.5 * model.dim * (1 + math.log(TEMPERATURE))  # the entropy of p_0, but for 1/2 D log 2 pi
    return exact.ends(z) - 0.5 * momentum.mean_square() + first + log_jacobian


def proposals_of(name: str) -> list[Proposal]:
    sizes = [StepSize(STEP) for _ in range(NUM_STEPS)]
    if name == "hvae":
        return TemperedHamiltonian(NUM_STEPS, NUM_LEAPFROG, "fixed", TEMPERATURE).proposals(sizes)
    makers: dict[str, Any] = {
        "ula": Langevin,
        "hmc": lambda size: Hamiltonian(size, NUM_LEAPFROG),
        "uha": lambda size: PartialHamiltonian(size, NUM_LEAPFROG, RHO),
    }
    return [makers[name](size) for size in sizes]


CASES = {
    "ula": (langevin, 1 + NUM_STEPS),
    "hmc": (hamiltonian, 1 + NUM_STEPS),
    "uha": (uncorrected, 2 + NUM_STEPS),
    "hvae": (hamiltonian_vae, 2),
}


def found(model: GaussianModel, name: str, schedule: Any, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The package's mean log-weight over the points of the cubature."""
    count = CASES[name][1] * model.dim
    points = math.sqrt(count) * torch.cat([torch.eye(count), -torch.eye(count)])
    first, *rest = points.split(model.dim, 1)
    given = iter(noise[:, None] for noise in rest)
    monkeypatch.setattr(torch, "randn_like", lambda z: next(given))
    kernels = [make_kernel(proposal, "none") for proposal in proposals_of(name)]
    sampler = Sampler(kernels, make_schedule(schedule, NUM_STEPS), latent_dim=model.dim)
    posterior = model.posterior(model.x)
    path = make_path(posterior, posterior.log_prob, model.joint(model.x), sampler)
    with torch.no_grad():
        trajectory = sampler((first @ model.cholesky.T + model.mean)[:, None], path, create_graph=False)
        weights, _ = log_weights(trajectory, "reversal", sampler, path)
    assert next(given, None) is None  # all noise was used
    return weights.mean()


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize("name", CASES)
def test_the_bound_of_an_affine_chain_is_exact(
    name: str, schedule: str, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in (GaussianModel(dim), GaussianModel(dim, 0.0, 1.0), GaussianModel(dim, -0.5, 0.6)):
        betas = [1.0] * NUM_STEPS if schedule == "constant" else [k / (NUM_STEPS + 1) for k in range(1, NUM_STEPS + 1)]
        expected = CASES[name][0](model, betas)
        assert abs(found(model, name, schedule, monkeypatch) - expected) < 1e-9
        assert expected < model.log_evidence()


def test_the_judge_sees_another_schedule_and_another_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GaussianModel(2)
    for name, (expected, _) in CASES.items():
        value = found(model, name, "constant", monkeypatch)
        assert abs(value - expected(model, [0.9, 1.0, 1.0])) > 1e-4
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[__name__], "STEP", 1.01 * STEP)
            assert abs(value - expected(model, [1.0, 1.0, 1.0])) > 1e-5


@pytest.mark.parametrize("count", [1, 5, 50, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 10, 500))])
@pytest.mark.parametrize(("shift", "widen"), [(0.3, 1.3), (-0.2, 1.1), (0.0, 1.0)])
def test_the_importance_weighted_bound_is_exact(count: int, shift: float, widen: float) -> None:
    """log w / p(x) in one dimension, with z drawn here and the functional of the package; drawn 2 000 000 times."""
    model = GaussianModel(1, shift, widen)
    scale = model.cholesky[0, 0]
    exact_scale = scale / widen

    def log_ratio(e: Tensor) -> Tensor:
        """Of the posterior N(m, s^2) to q = N(m + shift, (widen s)^2) at the point e of q's noise."""
        z = (shift + scale * e) / exact_scale
        return 0.5 * e.square() - 0.5 * z.square() + math.log(widen)

    with torch.no_grad():
        posterior = model.posterior(model.x)
        draws = posterior.sample((count, 2_000_000 // count))[:, :, 0]
        weights = model.joint(model.x)(draws) - posterior.log_prob(draws) - model.log_evidence()
    bounds = functionals.log_mean_exp(weights, 0)
    nodes = torch.linspace(-9, 9, 3001)
    chance = Normal(0.0, 1.0).log_prob(nodes).exp() * (nodes[1] - nodes[0])
    times = torch.linspace(-30, 60, 9001)
    transform = torch.stack([(chance * (-(t.exp() / count) * log_ratio(nodes).exp()).exp()).sum() for t in times])
    integrand = (-times.exp()).exp() - transform**count
    expected = integrand.sum() * (times[1] - times[0])
    assert abs(bounds.mean() - expected) < 5 * bounds.std() / math.sqrt(len(bounds)) + 1e-6
    assert expected < 1e-6
    if widen != 1.0 and count > 1:  # another functional is seen
        assert abs(functionals.mean(weights, 0).mean() - expected) > 5 * bounds.std() / math.sqrt(len(bounds)) + 1e-3
