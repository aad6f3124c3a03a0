"""Importance sampling against the known likelihood of the linear-Gaussian model."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from metvae_cli.evaluation.estimate import Estimate, bits_per_dimension
from metvae_cli.evaluation.importance import ProposalWeights, importance_sampling, repeated
from metvae_cli.evaluation.proposals import overdispersed
from tests.evaluation.linear_gaussian_data import data, frozen, numbered
from tests.objectives.linear_gaussian import LinearGaussian

pytestmark = pytest.mark.usefixtures("double")


def test_the_estimate_is_right() -> None:
    model, x = LinearGaussian(shift=0.1, widen=1.3), data(100)
    estimate = importance_sampling(frozen(model), numbered(x), 20_000)
    exact = model.log_evidence(x)
    error = (1 / estimate.effective_samples).sqrt()
    assert ((estimate.per_datum - exact).abs() / error).max() < 5
    assert estimate.mean == pytest.approx(float(exact.mean()), abs=0.01)
    assert estimate.standard_error == pytest.approx(float(exact.std()) / 10, rel=0.02)


def test_at_the_posterior_it_is_exact() -> None:
    model, x = LinearGaussian(), data(40)
    estimate = importance_sampling(frozen(model), numbered(x), 7, chunk=64)
    assert (estimate.per_datum - model.log_evidence(x)).abs().max() < 1e-9
    assert torch.allclose(estimate.effective_samples, torch.full((40,), 7.0))


def test_seed_repeat_and_purpose_name_the_draws() -> None:
    model, x = frozen(LinearGaussian(shift=0.1, widen=1.3)), data(2)
    said: list[dict[str, Any]] = [{}, {"seed": 1}, {"repeat": 1}, {"purpose": "kl"}]
    found = [importance_sampling(model, numbered(x), 10, **names).mean for names in said]
    assert len(set(found)) == len(found)
    assert importance_sampling(model, numbered(x), 10, purpose="kl").mean == found[-1]


@pytest.mark.slow
def test_it_rises_with_samples_and_stays_below() -> None:
    """Paired over 1000 copies of a datum, each with random numbers of its own."""
    model, x = LinearGaussian(shift=0.5, widen=1.5), data(1).expand(1000, 3)
    estimates = [importance_sampling(frozen(model), numbered(x), count).per_datum for count in (1, 10, 100, 1000, 5000)]
    for fewer, more in pairwise(estimates):
        gain = more - fewer
        assert gain.mean() > -5 * gain.std() / math.sqrt(len(x))
    exact = float(model.log_evidence(x[:1]))
    assert estimates[0].mean() < exact - 0.1
    assert estimates[-1].mean() < exact + 5 * estimates[-1].std() / math.sqrt(len(x))


@pytest.mark.parametrize("chunk", [10, 140, 10**9])
@pytest.mark.parametrize("size", [1, 7, 30])
def test_neither_the_chunk_nor_the_company_changes_a_number(chunk: int, size: int) -> None:
    model, x = LinearGaussian(shift=0.3), data(30)
    expected = importance_sampling(frozen(model), numbered(x), 1100)
    estimate = importance_sampling(frozen(model), numbered(x, size), 1100, chunk=chunk)
    assert (estimate.per_datum - expected.per_datum).abs().max() < 1e-12
    alone = importance_sampling(frozen(model), [(torch.tensor([17]), x[17:18])], 1100, chunk=chunk)
    assert abs(alone.per_datum[0] - expected.per_datum[17]) < 1e-12


def test_repeats_and_seeds_differ_and_each_repeats_bitwise() -> None:
    model, x = LinearGaussian(shift=0.3), data(30)
    first, again = (importance_sampling(frozen(model), numbered(x), 50, seed=3, repeat=1) for _ in range(2))
    assert torch.equal(first.per_datum, again.per_datum)
    for seed, repeat in ((3, 0), (4, 1)):
        other = importance_sampling(frozen(model), numbered(x), 50, seed=seed, repeat=repeat)
        assert (other.per_datum - first.per_datum).abs().min() > 1e-6


def test_the_random_state_outside_stays_as_it_is() -> None:
    before = torch.get_rng_state()
    importance_sampling(frozen(LinearGaussian()), numbered(data(3)), 10)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() is torch.float64


def test_too_narrow_a_proposal_is_flagged_and_spread_out_it_is_not() -> None:
    """A Gaussian posterior covered with half its scale: weights without a variance, of Pareto shape near 3/4."""
    model, x = LinearGaussian(widen=0.5), data(20)
    narrow = importance_sampling(frozen(model), numbered(x), 5000)
    spread = ProposalWeights(frozen(model), overdispersed(model.posterior, 2.4))
    wide = importance_sampling(frozen(model), numbered(x), 5000, weigh=spread)
    assert (narrow.pareto_k > 0.5).float().mean() > 0.9
    assert (wide.pareto_k < 0.5).all()
    assert (wide.per_datum - model.log_evidence(x)).abs().max() < 0.1
    assert wide.effective_samples.mean() > 10 * narrow.effective_samples.mean()


def test_a_spread_out_proposal_is_a_density() -> None:
    posterior = overdispersed(LinearGaussian().posterior, 1.7)(data(1))
    grid = torch.linspace(-12, 12, 601)
    z = torch.cartesian_prod(grid, grid)[:, None]
    mass = posterior.log_prob(z).exp().sum() * (grid[1] - grid[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-6)
    drawn = posterior.rsample((200_000,))[:, 0]
    assert torch.allclose(drawn.mean(0), posterior.mean[0], atol=0.02)
    assert torch.allclose(drawn.std(0), posterior.stddev[0], rtol=0.02)


def test_progress_is_reported_and_can_stop_it() -> None:
    seen: list[int] = []
    importance_sampling(frozen(LinearGaussian()), numbered(data(60), 30), 100, between=seen.append)
    assert seen == [0, 20, 30, 50, 60]

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        importance_sampling(frozen(LinearGaussian()), numbered(data(60)), 2, between=stop)


def test_errors_over_data_and_over_repeats() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]])
    estimate = Estimate(values)
    assert estimate.mean == 2.25
    assert estimate.standard_error == pytest.approx(1 / math.sqrt(3))
    assert estimate.repeat_error == pytest.approx(math.sqrt(0.125) / math.sqrt(2))
    assert math.isnan(Estimate(values[:1]).repeat_error)
    assert math.isnan(Estimate(values[:, :1]).standard_error)


def test_the_error_over_repeats_is_that_of_new_random_numbers() -> None:
    """Its mean square over many sets of repeats is the variance of the mean."""
    model, x = LinearGaussian(shift=0.5), data(20)

    def single(repeat: int) -> Tensor:
        return importance_sampling(frozen(model), numbered(x), 20, repeat=repeat).per_datum

    values = torch.stack([single(repeat) for repeat in range(200)])
    truth = values.mean(1).var() / 10
    errors = torch.tensor([Estimate(part).repeat_error for part in values.split(10)])
    assert errors.square().mean().item() == pytest.approx(truth.item(), rel=0.3)
    assert repeated([importance_sampling(frozen(model), numbered(x), 20)]).values.shape == (1, 20)


def test_bits_per_dimension() -> None:
    assert bits_per_dimension(-64 * math.log(2), 64, dequantized=False) == pytest.approx(1.0)
    # Uniform noise on uniform levels: a density of 1 over [0, 1), eight bits a value.
    assert bits_per_dimension(0.0, 10, dequantized=True) == pytest.approx(8.0)
