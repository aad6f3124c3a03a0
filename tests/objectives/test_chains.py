"""Every kind of chain on the linear-Gaussian model: unbiased weights, in every frame and schedule."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from metvae_cli.densities import Point
from metvae_cli.kernels.base import Proposal, Refreshed
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.partial_hamiltonian import PartialHamiltonian
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.tempered_hamiltonian import TemperedHamiltonian, TemperedStep
from metvae_cli.objectives.weights import Bookkeeping, WeightObjective
from metvae_cli.samplers.assembly import AcceptanceName, make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.reverse import Learned
from tests.objectives.linear_gaussian import LinearGaussian

pytestmark = pytest.mark.usefixtures("double")
X = torch.tensor([[0.9, -0.4, 1.1]], dtype=torch.float64)
CHAINS, NUM_STEPS = 200_000, 3


def sampler_of(proposals: list[Proposal], acceptance: AcceptanceName, schedule: Any, **options: Any) -> Sampler:
    kernels = [make_kernel(proposal, acceptance) for proposal in proposals]
    return Sampler(kernels, make_schedule(schedule, len(kernels)), latent_dim=2, **options)


def standard_score(sampler: Sampler, bookkeeping: Bookkeeping) -> float:
    """How many standard errors the mean of w / p(x) lies above 1."""
    model = LinearGaussian(shift=0.2, widen=1.4)
    with torch.no_grad():
        output = WeightObjective(bookkeeping, "mean", CHAINS)(model, sampler, X)
    weights = (output.log_weights[:, 0] - model.log_evidence(X)).exp()
    return float((weights.mean() - 1) / (weights.std() / math.sqrt(len(weights))))


def partial(noise: Any = "averaged", turn: Any = "rejection", persistence: float = 0.6) -> list[Proposal]:
    return [PartialHamiltonian(StepSize(0.4), 2, persistence, noise=noise, turn=turn) for _ in range(NUM_STEPS)]


@pytest.mark.parametrize("noise", ["averaged", "fixed"])
@pytest.mark.parametrize("turn", ["rejection", "acceptance"])
@pytest.mark.parametrize("acceptance", ["none", "barker"])
def test_partial_refreshment_is_unbiased(noise: str, turn: str, acceptance: AcceptanceName) -> None:
    # Most of the momentum is kept: with less, the weights of the fixed account have no variance (rho^(2K) < 1/2).
    bookkeeping = "path" if acceptance == "barker" else "reversal"
    assert abs(standard_score(sampler_of(partial(noise, turn, 0.95), acceptance, "linear"), bookkeeping)) < 5


@pytest.mark.parametrize("acceptance", ["metropolis", "barker"])
def test_partial_refreshment_is_unbiased_with_decisions_summed_out(acceptance: AcceptanceName) -> None:
    assert abs(standard_score(sampler_of(partial(), acceptance, "linear"), "reversal")) < 5


def test_metropolis_decisions_with_a_uniform_reverse_are_below() -> None:
    assert standard_score(sampler_of(partial(), "metropolis", "constant"), "path") < -5


class ForgottenJacobian(PartialHamiltonian):
    """The MetFlow account without the Jacobian of the refreshment."""

    def refresh(self, point: Point) -> Refreshed:
        refreshed = super().refresh(point)
        assert refreshed.log_weight is not None
        forgotten = point.z.shape[-1] * torch.sigmoid(self.logit).log()
        return refreshed._replace(log_weight=refreshed.log_weight - forgotten)


def test_a_forgotten_jacobian_is_rejected() -> None:
    wrong: list[Proposal] = [ForgottenJacobian(StepSize(0.4), 2, 0.95, noise="fixed") for _ in range(NUM_STEPS)]
    assert abs(standard_score(sampler_of(wrong, "barker", "constant"), "path")) > 5


@pytest.mark.parametrize("tempering", ["fixed", "free", "none"])
def test_hamiltonian_vae_is_unbiased(tempering: Any) -> None:
    family = TemperedHamiltonian(NUM_STEPS, 2, tempering)
    sampler = sampler_of(family.proposals([StepSize(0.3) for _ in range(NUM_STEPS)]), "none", "constant")
    assert abs(standard_score(sampler, "reversal")) < 5


class ForgottenTemperature(TemperedStep):
    """A momentum of temperature T_0 that is weighed as if it were of temperature 1."""

    def refresh(self, point: Point) -> Refreshed:
        refreshed = super().refresh(point)
        if refreshed.log_weight is None:
            return refreshed
        forgotten = 0.5 * point.z.shape[-1] * self.tempering()[0]
        return refreshed._replace(log_weight=refreshed.log_weight - forgotten)


def test_a_hamiltonian_vae_that_forgets_its_temperature_is_rejected() -> None:
    tempering = TemperedHamiltonian(NUM_STEPS, 2, "fixed", 2.0).tempering
    wrong: list[Proposal] = [ForgottenTemperature(StepSize(0.3), 2, tempering, index) for index in range(NUM_STEPS)]
    assert abs(standard_score(sampler_of(wrong, "none", "constant"), "reversal")) > 5


@pytest.mark.parametrize("schedule", ["sigmoidal", "learned", "linear"])
@pytest.mark.parametrize("precondition", ["none", "encoder", "adapted"])
@pytest.mark.parametrize(
    ("acceptance", "bookkeeping"), [("none", "reversal"), ("barker", "path"), ("metropolis", "reversal")]
)
def test_schedules_and_frames_are_unbiased(
    schedule: str, precondition: Any, acceptance: AcceptanceName, bookkeeping: Bookkeeping
) -> None:
    proposals: list[Proposal] = [Hamiltonian(StepSize(0.5), 2) for _ in range(NUM_STEPS)]
    sampler = sampler_of(proposals, acceptance, schedule, precondition=precondition)
    sampler.scale.copy_(torch.tensor([0.5, 0.9]))
    assert abs(standard_score(sampler, bookkeeping)) < 5


def test_any_reverse_distribution_is_unbiased_with_barker_and_a_wrong_one_is_not() -> None:
    proposals: list[Proposal] = [Hamiltonian(StepSize(0.5), 2) for _ in range(NUM_STEPS)]
    learned = Learned(2, 4, NUM_STEPS, (8,))
    sampler = sampler_of(proposals, "barker", "constant", reverse=learned)
    assert abs(standard_score(sampler, "path")) < 5

    class Unnormalised(Learned):
        def log_decisions(self, accepted: Tensor, z: Tensor, context: Tensor) -> Tensor:
            return super().log_decisions(accepted, z, context) + 0.1

    sampler.reverse = Unnormalised(2, 4, NUM_STEPS, (8,))
    assert standard_score(sampler, "path") > 5


def test_a_learned_reverse_is_a_distribution() -> None:
    learned, z, context = Learned(2, 4, 3, (8,)), torch.randn(5, 6, 2), torch.randn(6, 4)
    histories = itertools.product((False, True), repeat=3)
    accepted = [torch.tensor(history)[:, None, None].expand(3, 5, 6) for history in histories]
    total = torch.stack([learned.log_decisions(each, z, context) for each in accepted]).logsumexp(0)
    assert torch.allclose(total, torch.zeros(5, 6), atol=1e-12)


def test_learning_the_reverse_tightens_the_metropolis_bound() -> None:
    model, x = LinearGaussian(shift=0.2, widen=1.4), X.expand(500, 3)
    learned = Learned(2, 4, NUM_STEPS, (16,))
    proposals: list[Proposal] = [Hamiltonian(StepSize(0.5), 2) for _ in range(NUM_STEPS)]
    sampler = sampler_of(proposals, "metropolis", "constant", reverse=learned)
    objective = WeightObjective("path", "mean", 2)
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.02)
    before = objective(model, sampler, x).bound.mean()
    for _ in range(60):
        optimizer.zero_grad()
        objective(model, sampler, x).loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = objective(model, sampler, X.expand(20_000, 3)).bound.mean()
    assert after > before + 0.5
    assert after < model.log_evidence(X)[0]


@pytest.mark.parametrize("name", ["sigmoidal", "learned"])
def test_learned_schedules_rise_inside_the_unit_interval_and_get_gradients(name: Any) -> None:
    for num_steps, start in itertools.product((1, 2, 7), ("linear", "geometric")):
        schedule = make_schedule(name, num_steps, start)  # pyright: ignore[reportArgumentType]
        betas = schedule()
        assert ((betas > 0) & (betas < 1)).all()
        assert (betas.diff() > 0).all()
        if name == "learned":
            expected = torch.arange(1, num_steps + 1) / (num_steps + 1)
            if start == "geometric":
                expected = 0.5 ** torch.arange(num_steps, 0, -1)
            assert torch.allclose(betas, expected.to(betas))
    proposals: list[Proposal] = [Hamiltonian(StepSize(0.5), 2) for _ in range(NUM_STEPS)]
    sampler = sampler_of(proposals, "none", name)
    WeightObjective("reversal", "mean", 2)(LinearGaussian(0.2, 1.4), sampler, X.expand(50, 3)).loss.backward()
    for parameter in sampler.schedule.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()
