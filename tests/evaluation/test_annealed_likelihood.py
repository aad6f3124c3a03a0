"""AIS and BDMC against the known likelihood of the linear-Gaussian model."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor

from metvae_cli.densities import Point, select
from metvae_cli.evaluation import annealing
from metvae_cli.evaluation.annealed_likelihood import (
    AnnealedEstimate,
    Simulated,
    annealed_importance_sampling,
    bidirectional,
    simulate,
)
from metvae_cli.evaluation.annealing import AnnealingSettings, StartName
from tests.evaluation.linear_gaussian_data import data, frozen, numbered
from tests.objectives.linear_gaussian import LinearGaussian

pytestmark = pytest.mark.usefixtures("double")


def settings(
    num_temperatures: int = 60, num_chains: int = 100, start: str = "prior", chunk: int = 10_000
) -> AnnealingSettings:
    begin = cast(StartName, start)
    return AnnealingSettings(num_temperatures, num_chains, num_leapfrog=3, start=begin, data=None, chunk=chunk)


def errors(estimate: AnnealedEstimate, exact: Tensor) -> Tensor:
    """In standard errors of each datum, from the effective number of chains."""
    relative = (1 / estimate.effective_chains - 1 / 100).clamp(min=1e-4).sqrt()
    return (estimate.per_datum - exact) / relative


@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_annealing_matches_the_likelihood(start: str) -> None:
    model, x = LinearGaussian(shift=0.7, widen=1.5), data(20)
    estimate = annealed_importance_sampling(frozen(model), numbered(x), settings(start=start))
    exact = model.log_evidence(x)
    assert errors(estimate, exact).abs().max() < 5
    assert (estimate.per_datum - exact).mean().abs() < 0.05
    assert 0.7 < estimate.accept_prob < 0.9


def test_weights_are_unbiased_and_their_logarithm_is_below() -> None:
    """Few temperatures, so that weights vary; E[w] = p(x) over 2000 copies of a datum."""
    model, x = LinearGaussian(), data(2)[1:].expand(2000, 3)
    few = AnnealingSettings(4, num_chains=1, num_leapfrog=1, data=None, chunk=4000)
    found = annealed_importance_sampling(frozen(model), numbered(x, 4000), few).per_datum - model.log_evidence(x[:1])
    ratio = found.exp()
    assert (ratio.mean() - 1).abs() < 5 * ratio.std() / math.sqrt(len(x))
    assert found.mean() < -5 * found.std() / math.sqrt(len(x))


@pytest.mark.slow
def test_tuning_on_the_run_itself_would_spoil_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge above rejects step sizes that were tuned on the very noise they are used with."""
    model, x = LinearGaussian(), data(2)[1:].expand(2000, 3)
    few = AnnealingSettings(4, num_chains=1, num_leapfrog=1, data=None, chunk=4000)
    stay = annealing._Stepper.step

    def favoured(self: annealing._Stepper, point: Point, beta: Tensor, step_sizes: Tensor) -> tuple[Point, Tensor]:
        """Of two step sizes, the one that leads to the larger density: not a function of the past alone."""
        one, accept_prob = stay(self, point, beta, step_sizes)
        other, _ = stay(self, point, beta, 2 * step_sizes)
        return select(one.log_final > other.log_final, one, other), accept_prob

    monkeypatch.setattr(annealing._Stepper, "step", favoured)
    found = annealed_importance_sampling(frozen(model), numbered(x, 4000), few).per_datum - model.log_evidence(x[:1])
    ratio = found.exp()
    assert (ratio.mean() - 1).abs() > 5 * ratio.std() / math.sqrt(len(x))


def test_both_bounds_hold_the_likelihood_between_them() -> None:
    model = LinearGaussian(shift=0.7, widen=1.5)
    simulated = simulate(frozen(model), 20, seed=1)
    lower, upper = bidirectional(frozen(model), simulated, settings())
    exact = model.log_evidence(simulated.x)
    assert errors(lower, exact).max() < 5
    assert errors(upper, exact).min() > -5
    gap = upper.per_datum - lower.per_datum
    assert gap.mean() > -5 * gap.std() / math.sqrt(20)
    assert gap.mean() < 0.1


@pytest.mark.slow
def test_the_gap_closes_with_temperatures() -> None:
    model = frozen(LinearGaussian())
    simulated, gaps = simulate(model, 50, seed=2), []
    for num_temperatures in (5, 20, 80):
        lower, upper = bidirectional(model, simulated, settings(num_temperatures, num_chains=5))
        gaps.append((upper.per_datum - lower.per_datum).mean().item())
    assert gaps[0] > 1.8 * gaps[1] > 1.8**2 * gaps[2]


@pytest.mark.slow
@pytest.mark.parametrize("exact_start", [True, False])
def test_backward_weights_are_unbiased_for_the_inverse(exact_start: bool) -> None:
    """E[w] = 1 / p(x) over draws z of the posterior of one x; and not over others, which the judge rejects.

    Sixteen temperatures: with very few the weights of the way back have no variance.
    """
    model, x = LinearGaussian(shift=0.0 if exact_start else 1.5), data(1)
    torch.manual_seed(3)
    z = model.posterior(x).rsample((3000,))[:, 0]
    short = AnnealingSettings(16, num_chains=1, num_leapfrog=1, data=None, chunk=3000)
    _, upper = bidirectional(frozen(model), Simulated(z, x.expand(3000, 3)), short)
    ratio = (model.log_evidence(x) - upper.per_datum).exp()
    error = (ratio.mean() - 1).abs() / (ratio.std() / math.sqrt(len(ratio)))
    assert error < 5 if exact_start else error > 5


def test_simulated_data_have_the_law_of_the_model() -> None:
    model = LinearGaussian()
    simulated = simulate(frozen(model), 5000, seed=0)
    covariance = model.weight @ model.weight.T + 0.64 * torch.eye(3)
    assert torch.allclose(torch.cov(simulated.x.T), covariance, atol=0.15)
    z_error = simulated.z - model.posterior(simulated.x).mean
    assert torch.allclose(torch.cov(z_error.T), model.posterior(simulated.x[:1]).covariance_matrix[0], atol=0.05)


@pytest.mark.parametrize(
    "chunk", [pytest.param(1, marks=pytest.mark.slow), 30, pytest.param(10_000, marks=pytest.mark.slow)]
)
def test_neither_the_chunk_nor_the_company_changes_a_number(chunk: int) -> None:
    model, x = frozen(LinearGaussian()), data(6)
    expected = annealed_importance_sampling(model, numbered(x), settings(20, 10))
    found = annealed_importance_sampling(model, numbered(x, 4), settings(20, 10, chunk=chunk))
    assert (found.per_datum - expected.per_datum).abs().max() < 1e-9


def test_it_repeats_and_leaves_the_random_state() -> None:
    model, x = frozen(LinearGaussian()), data(3)
    before = torch.get_rng_state()
    first, again, other = (annealed_importance_sampling(model, numbered(x), settings(10), seed) for seed in (0, 0, 1))
    assert torch.equal(first.per_datum, again.per_datum)
    assert not torch.equal(first.per_datum, other.per_datum)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_progress_rises_to_the_number_of_data() -> None:
    seen: list[float] = []
    annealed_importance_sampling(
        frozen(LinearGaussian()), numbered(data(6)), settings(10, chunk=40), between=seen.append
    )
    assert seen == sorted(seen)
    assert seen[-1] == 6


@pytest.mark.parametrize("num_temperatures", [2, 3, 50])
def test_schedules_run_from_zero_to_one(num_temperatures: int) -> None:
    for schedule in ("sigmoid", "linear"):
        betas = AnnealingSettings(schedule=schedule).betas(num_temperatures)
        assert betas[0] == 0
        assert betas[-1] == 1
        assert (betas.diff() > 0).all()
