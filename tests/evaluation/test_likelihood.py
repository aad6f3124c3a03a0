"""Importance sampling against the known likelihood of the linear-Gaussian model."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from metvae_cli.evaluation.likelihood import importance_sampling
from metvae_cli.objectives.weights import WeightObjective
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.schedule import Constant
from tests.objectives.linear_gaussian import LinearGaussian

pytestmark = pytest.mark.usefixtures("double")


def data(count: int) -> list[torch.Tensor]:
    model = LinearGaussian()
    covariance = model.weight @ model.weight.T + 0.64 * torch.eye(3)
    return list(MultivariateNormal(model.offset, covariance).sample((count,)).split(30))


def test_the_estimate_is_right() -> None:
    model, batches = LinearGaussian(shift=0.1, widen=1.3), data(100)
    estimate = importance_sampling(model, batches, 20_000)
    exact = torch.cat([model.log_evidence(x) for x in batches])
    error = (1 / estimate.effective_samples).sqrt()
    assert ((estimate.per_datum - exact).abs() / error).max() < 5
    assert estimate.mean == pytest.approx(float(exact.mean()), abs=0.01)
    assert estimate.standard_error == pytest.approx(float(exact.std()) / 10, rel=0.02)


def test_at_the_posterior_it_is_exact() -> None:
    model, batches = LinearGaussian(), data(40)
    estimate = importance_sampling(model, batches, 7, chunk=64)
    assert (estimate.per_datum - torch.cat([model.log_evidence(x) for x in batches])).abs().max() < 1e-9
    assert torch.allclose(estimate.effective_samples, torch.full((40,), 7.0))


def test_it_is_below_in_expectation_and_rises_with_samples() -> None:
    model, x = LinearGaussian(shift=0.5, widen=1.5), data(1)[0].expand(5000, 3)
    means = [importance_sampling(model, [x], samples).mean for samples in (1, 10, 100, 1000)]
    assert means == sorted(means)
    assert means[0] < float(model.log_evidence(x[:1])) - 0.1


def test_it_is_the_importance_weighted_bound() -> None:
    """One chunk and one batch: the same draws give the same number."""
    model, x = LinearGaussian(shift=0.5, widen=1.5), data(20)[0]
    torch.manual_seed(1)
    estimate = importance_sampling(model, [x], 50)
    torch.manual_seed(1)
    with torch.no_grad():
        bound = WeightObjective("none", "log_mean_exp", 50)(model, Sampler([], Constant(0)), x).bound
    assert torch.allclose(estimate.per_datum, bound, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 100, 7 * 20, 10**9])
def test_every_sample_is_used_whatever_the_chunk(chunk: int) -> None:
    model, x = LinearGaussian(), data(20)
    assert torch.allclose(importance_sampling(model, x, 13, chunk).effective_samples, torch.full((20,), 13.0))


def test_progress_is_reported_and_can_stop_it() -> None:
    seen: list[int] = []
    importance_sampling(LinearGaussian(), data(60), 2, between=seen.append)
    assert seen == [0, 1, 2]

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        importance_sampling(LinearGaussian(), data(60), 2, between=stop)


def test_one_datum_has_no_standard_error() -> None:
    assert math.isnan(importance_sampling(LinearGaussian(), data(1), 2).standard_error)
