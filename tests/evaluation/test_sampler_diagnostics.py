"""Diagnostics of samplers on the linear-Gaussian model, whose posterior is known."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from metvae_cli.build import build_experiment
from metvae_cli.evaluation.long_chains import can_run_long
from metvae_cli.evaluation.sampler_diagnostics import (
    compare_with_reference,
    diagnose_chains,
    diagnose_steps,
    reference_draws,
    trained_draws,
)
from metvae_cli.evaluation.trained_chain import trained_positions
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.base import Kernel
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.random_walk import RandomWalk
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.tempered_hamiltonian import TemperedStep, Tempering
from metvae_cli.kernels.unadjusted import Unadjusted
from metvae_cli.samplers.chain import Decisions, Sampler
from metvae_cli.samplers.enumeration import Histories
from metvae_cli.samplers.schedule import Constant, Linear
from tests.evaluation.linear_gaussian_data import data
from tests.objectives.linear_gaussian import LinearGaussian
from tests.runs import configuration

pytestmark = pytest.mark.usefixtures("double")


def hmc(step_size: float, steps: int = 2, acceptance: Acceptance = Acceptance.METROPOLIS) -> Sampler:
    kernels: list[Kernel] = [MetropolisHastings(Hamiltonian(StepSize(step_size), 3), acceptance) for _ in range(steps)]
    return Sampler(kernels, Constant(steps), latent_dim=2)


@pytest.mark.slow
def test_a_good_chain_is_not_stuck_and_one_with_a_huge_step_is() -> None:
    torch.manual_seed(0)
    model, x = LinearGaussian(), data(6)
    good = diagnose_chains(model, hmc(0.5), x, num_chains=6, num_draws=600)
    assert not good.stuck.any()
    assert (good.r_hat < 1.02).all()
    assert (good.effective_size > 300).all()
    assert torch.allclose(good.effective_per_evaluation, good.effective_size / (6 * 600 * 6))
    bad = diagnose_chains(model, hmc(60.0), x, num_chains=6, num_draws=300)
    assert bad.stuck.all()
    assert bad.r_hat.isnan().all()
    assert bad.accept_prob.max() < 0.01


class WideForTheSecond(LinearGaussian):
    """An encoder a thousand times too wide for the second datum of three."""

    def posterior(self, x: Tensor) -> MultivariateNormal:
        found = super().posterior(x)
        scale = torch.tensor([1.0, 1000.0, 1.0])[:, None, None]
        return MultivariateNormal(found.mean, scale_tril=scale * found.scale_tril)


def test_one_datum_on_which_it_is_stuck_is_found() -> None:
    """Its chains lie in a frame a thousand times as wide as the others'."""
    torch.manual_seed(0)
    model, x = WideForTheSecond(), data(3)
    sampler = Sampler(hmc(0.5).steps, Constant(2), precondition="encoder", latent_dim=2)
    assert diagnose_chains(model, sampler, x, 4, 100).stuck.tolist() == [False, True, False]


def test_steps_of_hamiltonian_chains_have_the_energy_errors_of_their_acceptance() -> None:
    """At stationarity the error e has E[exp(-e)] = 1, so that its mean is about half its variance; never below zero."""
    torch.manual_seed(0)
    found = diagnose_steps(LinearGaussian(), hmc(0.9, 3), data(20), 2000)
    assert found.accept_prob.shape == (3,)
    assert torch.allclose(found.accept_prob, found.metropolis_prob)
    assert (found.energy_error > 0).all()
    assert (found.energy_error_size > found.energy_error).all()
    smaller = diagnose_steps(LinearGaussian(), hmc(0.3, 3), data(20), 2000)
    assert (smaller.energy_error < 0.2 * found.energy_error).all()
    assert (smaller.accept_prob > found.accept_prob).all()
    assert (found.divergent == 0).all()


def test_steps_of_unadjusted_chains_and_of_the_barker_rule() -> None:
    torch.manual_seed(0)
    langevin: list[Kernel] = [Unadjusted(Langevin(StepSize(0.05))) for _ in range(2)]
    found = diagnose_steps(LinearGaussian(), Sampler(langevin, Linear(2), latent_dim=2), data(20), 500)
    assert ((found.energy_error.abs() < 0.05) & (found.accept_prob > 0.9)).all()
    barker = diagnose_steps(LinearGaussian(), hmc(0.05, 1, Acceptance.BARKER), data(20), 500)
    assert barker.accept_prob.item() == pytest.approx(0.5, abs=0.01)
    assert barker.metropolis_prob.item() > 0.98


def test_the_energy_error_of_an_unadjusted_step_leaves_out_its_refreshment() -> None:
    """Drawing a tempered momentum adds to the log-weight, but has no part in what a Metropolis test would compare."""
    torch.manual_seed(0)
    tempering = Tempering("fixed", 2, 3.0)
    kernels: list[Kernel] = [Unadjusted(TemperedStep(StepSize(1e-4), 1, tempering, index)) for index in range(2)]
    found = diagnose_steps(LinearGaussian(), Sampler(kernels, Linear(2)), data(20), 500)
    log_temperature, log_alpha = tempering()
    kinetic, expected = log_temperature.exp().item(), []  # of two coordinates; such a small step leaves the target
    for each in log_alpha.tolist():
        cooled = kinetic * math.exp(2 * each)
        expected.append(cooled - kinetic - 2 * each)  # of the kinetic energy, and of the volume
        kinetic = cooled
    assert found.energy_error.tolist() == pytest.approx(expected, abs=0.15)


def test_a_move_that_is_skipped_has_its_energy_error() -> None:
    torch.manual_seed(0)
    chain: list[Kernel] = [Unadjusted(Langevin(StepSize(0.4)), 0.9)]
    skipping = diagnose_steps(LinearGaussian(), Sampler(chain, Linear(1), latent_dim=2), data(20), 500)
    torch.manual_seed(0)
    chain = [Unadjusted(Langevin(StepSize(0.4)))]
    whole = diagnose_steps(LinearGaussian(), Sampler(chain, Linear(1), latent_dim=2), data(20), 500)
    assert torch.equal(skipping.energy_error_size, whole.energy_error_size)
    assert whole.energy_error_size.item() > 0.1


def test_the_reference_is_the_posterior() -> None:
    torch.manual_seed(0)
    model, x = LinearGaussian(shift=0.7, widen=0.4), data(3)
    reference = reference_draws(model, x, 20, 300)
    exact = LinearGaussian().posterior(x)
    assert (reference.r_hat < 1.02).all()
    assert (reference.draws.mean(0) - exact.mean).abs().max() < 0.05
    for datum in range(3):
        assert torch.allclose(torch.cov(reference.draws[:, datum].T), exact.covariance_matrix[datum], atol=0.03)


@pytest.mark.parametrize(
    ("shift", "widen"),
    [pytest.param(0.0, 1.0, marks=pytest.mark.slow), (0.6, 1.0), pytest.param(0.0, 0.5, marks=pytest.mark.slow)],
)
def test_divergences_are_those_of_gaussians(shift: float, widen: float) -> None:
    """Of q_0; and steps of a right kernel leave less of them."""
    torch.manual_seed(0)
    model, x = LinearGaussian(shift=shift, widen=widen), data(2)
    reference = reference_draws(model, x, 20, 200)
    start, end = trained_draws(model, hmc(0.5, 10), x, 3000)
    found = compare_with_reference(start, end, reference)
    exact = kl_divergence(model.posterior(x), LinearGaussian().posterior(x))
    assert (found.kl_start - exact).abs().max() < 0.12
    assert found.kl_end.abs().max() < 0.12
    assert found.scale_start.log().mean().exp().item() == pytest.approx(widen, rel=0.1)
    assert found.scale_end.log().mean().exp().item() == pytest.approx(1, rel=0.15)


def annealed(decisions: Decisions) -> Sampler:
    kernels = hmc(0.4, 5, Acceptance.BARKER).steps
    return Sampler(kernels, Linear(5), latent_dim=2, decisions=decisions)


def test_a_chain_that_stops_stands_still_from_there_on() -> None:
    torch.manual_seed(0)

    def moves_again(decisions: Decisions) -> bool:
        positions = trained_positions(LinearGaussian(shift=0.6), annealed(decisions), data(3), 200)
        assert positions.shape == (6, 200, 3, 2)
        moved = (positions[1:] != positions[:-1]).any(-1)
        assert 0.5 < moved.float().mean() < 0.99
        return bool((moved[1:] & ~moved[:-1]).any())

    assert not moves_again("stopped")
    assert moves_again("sampled")


@pytest.mark.slow
def test_the_end_of_a_chain_that_stops_is_drawn_by_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its probability alone half of the chains would still be where they began."""
    torch.manual_seed(0)
    model, x = LinearGaussian(shift=0.6), data(2)
    reference = reference_draws(model, x, 20, 200)
    start, end = trained_draws(model, annealed("stopped"), x, 3000)
    found = compare_with_reference(start, end, reference)
    assert (found.kl_start > 1).all()
    assert found.kl_end.abs().max() < 0.08
    draw = Histories.draw
    monkeypatch.setattr(Histories, "draw", lambda histories, log_weights: draw(histories))
    start, end = trained_draws(model, annealed("stopped"), x, 3000)
    assert (compare_with_reference(start, end, reference).kl_end > 0.3).all()


def test_a_chain_that_stops_on_a_copied_decoder() -> None:
    """With all that the default has: a learned reverse distribution, and a momentum that is kept in part."""
    words = ("sampler=hmc_stopped", "sampler.cloned_decoder=true", "encoder.hidden=[4]", "decoder.hidden=[4]")
    learner = build_experiment(configuration(*words, "trainer.device=cpu"), []).learner
    x = learner.dataset.held_out(learner.dataset.test, torch.arange(7))
    torch.manual_seed(0)
    model, sampler = learner.model.to(x.dtype), learner.sampler.to(x.dtype)
    positions = trained_positions(model, sampler, x, 40)
    assert positions.shape == (sampler.num_steps + 1, 40, 7, positions.shape[-1])
    moved = (positions[1:] != positions[:-1]).any(-1)
    assert not (moved[1:] & ~moved[:-1]).any()
    assert 0.2 < moved.float().mean() < 1


def test_which_samplers_have_long_chains() -> None:
    assert can_run_long(hmc(0.1))
    assert can_run_long(Sampler([Unadjusted(RandomWalk(StepSize(0.1)))], Constant(1)))
    assert not can_run_long(Sampler([], Constant(0)))


def test_nothing_is_said_of_chains_that_never_move() -> None:
    still = torch.zeros(100, 1, 2)
    torch.manual_seed(0)
    reference = reference_draws(LinearGaussian(), data(1), 10, 50)
    found = compare_with_reference(still, still, reference)
    assert math.isnan(found.kl_start.item())
