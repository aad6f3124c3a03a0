"""Each proposal as a bijection of (position, noise): log_correction against an autograd Jacobian, and the way back."""

import pytest
import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath
from metvae_cli.kernels.hamiltonian import Hamiltonian, leapfrog
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.step_size import StepSize
from tests.kernels.cases import CASES, Case
from tests.targets import Banana, normal_log_prob

pytestmark = pytest.mark.usefixtures("double")
TARGET = Banana()
ONE = torch.tensor(1.0, dtype=torch.float64)


def make_path() -> AnnealedPath:
    return AnnealedPath(lambda z: normal_log_prob(z, 0.3, 1.5).sum(-1), TARGET.log_prob, needs_score=True)


def propose(
    case: Case, z: Tensor, noise: Tensor, monkeypatch: pytest.MonkeyPatch, beta: Tensor = ONE
) -> tuple[Tensor, Tensor]:
    """Position and log_correction from z with imposed noise, both (D,)."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda z: noise.expand_as(z))
        path = make_path()
        proposal = case.make(StepSize(case.step_size))
        point = path.evaluate(z.expand(1, 1, -1), create_graph=True)
        proposed = proposal.propose(point, path, beta, create_graph=True)
    return proposed.point.z[0, 0], proposed.log_correction[0, 0]


# Several leapfrogs may reach one place from several momenta; reversibility and volume are tested below for them.
ONE_NOISE = [case for case in CASES if case.name != "hmc_4"]


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("case", ONE_NOISE, ids=lambda case: case.name)
def test_log_correction_is_that_of_a_bijection(case: Case, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Solve for the noise u' that leads back; log rho(u') - log rho(u) + log |det| must be what is reported.

    The determinant of (z, u) -> (z', u') comes from autograd and the implicit function theorem.
    """
    inverse_temperature = torch.tensor(beta, dtype=torch.float64)
    for _ in range(20):
        z, u = torch.randn(2, 2, dtype=torch.float64)
        moved, correction = propose(case, z, u, monkeypatch, inverse_temperature)
        back = solve_noise(case, moved.detach(), z, monkeypatch, inverse_temperature)
        returned, return_correction = propose(case, moved.detach(), back, monkeypatch, inverse_temperature)
        assert torch.allclose(returned, z, atol=1e-8)
        assert torch.allclose(return_correction, -correction, atol=1e-7)
        # |det d(z', u') / d(z, u)| = |det dz'/du (z, u)| / |det dz/du' (z', u')|, by the implicit function theorem
        forward = jacobian_in_noise(case, z, u, monkeypatch, inverse_temperature)
        backward = jacobian_in_noise(case, moved.detach(), back, monkeypatch, inverse_temperature)
        log_det = torch.linalg.slogdet(forward)[1] - torch.linalg.slogdet(backward)[1]
        density = 0.5 * (u.square() - back.square()).sum()
        assert torch.allclose(correction, density + log_det, atol=1e-7)


def jacobian_in_noise(case: Case, z: Tensor, u: Tensor, monkeypatch: pytest.MonkeyPatch, beta: Tensor) -> Tensor:
    """dz'/du, (D, D)."""
    return torch.autograd.functional.jacobian(lambda noise: propose(case, z, noise, monkeypatch, beta)[0], u)  # pyright: ignore


def solve_noise(case: Case, start: Tensor, end: Tensor, monkeypatch: pytest.MonkeyPatch, beta: Tensor) -> Tensor:
    """The noise that leads from start to end, by Newton's method from several starting points."""
    guesses = [*torch.randn(30, 2, dtype=torch.float64)]
    for guess in guesses:
        u = guess
        for _ in range(30):
            error = propose(case, start, u, monkeypatch, beta)[0].detach() - end
            if error.abs().max() < 1e-11:
                return u
            u = u - torch.linalg.solve(jacobian_in_noise(case, start, u, monkeypatch, beta), error)
    raise AssertionError("no noise leads back")


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("step", [0.01, 0.1])
def test_leapfrog_comes_back(num_steps: int, step: float) -> None:
    path, size = make_path(), torch.tensor(step)
    start, momentum = torch.randn(2, 50, 1, 2)
    there, there_momentum = leapfrog(
        path.evaluate(start, create_graph=False), momentum, path, ONE, size, num_steps, create_graph=False
    )
    back, back_momentum = leapfrog(there, -there_momentum, path, ONE, size, num_steps, create_graph=False)
    assert (back.z - start).abs().max() < 1e-9
    assert (back_momentum + momentum).abs().max() < 1e-9


@pytest.mark.parametrize("dim", [1, 2, 10])
def test_leapfrog_preserves_volume(dim: int) -> None:
    def log_prob(z: Tensor) -> Tensor:
        return -(z**4).sum(-1) / 4 - (z[..., 0] * z[..., -1]).sin()

    path = AnnealedPath(log_prob, log_prob, needs_score=True)

    def flow(state: Tensor) -> Tensor:
        point = path.evaluate(state[:dim].view(1, 1, dim), create_graph=True)
        end, momentum = leapfrog(point, state[dim:].view(1, 1, dim), path, ONE, torch.tensor(0.2), 3, create_graph=True)
        return torch.cat([end.z.flatten(), momentum.flatten()])

    jacobian = torch.autograd.functional.jacobian(flow, torch.randn(2 * dim))
    assert abs(torch.linalg.slogdet(jacobian)[1]) < 1e-9  # pyright: ignore


def test_energy_error_is_of_second_order() -> None:
    start, momentum = torch.randn(2, 2000, 1, 2)
    errors = []
    for step in (0.05, 0.025):
        path = make_path()
        point = path.evaluate(start, create_graph=False)
        end, last = leapfrog(point, momentum, path, ONE, torch.tensor(step), round(1 / step), create_graph=False)
        change = end.log_final - point.log_final - 0.5 * (last.square() - momentum.square()).sum(-1)
        errors.append(change.abs().median())
    assert 3.6 < errors[0] / errors[1] < 4.4


def test_langevin_is_one_leapfrog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step h of Langevin is one leapfrog of step sqrt(2 h)."""
    langevin = Case("langevin", Langevin, 0.3)
    hamiltonian = Case("hmc", Hamiltonian, 0.6**0.5)
    for _ in range(5):
        z, u = torch.randn(2, 2)
        one, other = propose(langevin, z, u, monkeypatch), propose(hamiltonian, z, u, monkeypatch)
        assert torch.allclose(one[0], other[0], atol=1e-12)
        assert torch.allclose(one[1], other[1], atol=1e-12)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_step_sizes_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="step_size="):
        StepSize(value)


def test_leapfrogs_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="num_leapfrog=0"):
        Hamiltonian(StepSize(0.1), num_leapfrog=0)
