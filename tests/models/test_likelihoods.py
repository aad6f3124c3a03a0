"""Likelihoods: they sum or integrate to one, agree with torch's distributions, and stay finite."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import ContinuousBernoulli, Normal, Poisson

from metvae_cli.models.likelihoods import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    GaussianLikelihood,
    PoissonLikelihood,
    log_constant,
)
from metvae_cli.models.pixel_likelihoods import CategoricalLikelihood, DiscretizedLogisticLikelihood

pytestmark = pytest.mark.usefixtures("double")
LEVELS = torch.arange(256, dtype=torch.float64) / 255
ONE = (1,)
# Every value that one number may take, or a grid with the width of its cells.
SUPPORTS: dict[str, tuple[Any, Tensor, float]] = {
    "bernoulli": (BernoulliLikelihood(), torch.tensor([0.0, 1.0]), 1.0),
    "continuous_bernoulli": (ContinuousBernoulliLikelihood(), (torch.arange(4000) + 0.5) / 4000, 1 / 4000),
    "gaussian": (GaussianLikelihood(0.7), torch.linspace(-12, 12, 4001), 24 / 4000),
    "gaussian_predicted": (GaussianLikelihood(0.7, predict_scale=True), torch.linspace(-30, 30, 20001), 60 / 20000),
    "poisson": (PoissonLikelihood(), torch.arange(400.0), 1.0),
    "discretized_logistic": (DiscretizedLogisticLikelihood(0.1), LEVELS, 1.0),
    "discretized_narrow": (DiscretizedLogisticLikelihood(1e-4, learn_scale=False), LEVELS, 1.0),
    "discretized_predicted": (DiscretizedLogisticLikelihood(0.1, False, True), LEVELS, 1.0),
    "categorical": (CategoricalLikelihood(), LEVELS, 1.0),
}


def everything(name: str, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters of 5 data, every value, and the log-probability of each value under each datum, (values, 5)."""
    likelihood, values, _ = SUPPORTS[name]
    parameters = scale * torch.randn(1, 5, *likelihood.parameter_shape(ONE))
    x = values.double().view(-1, 1, 1).expand(-1, 5, 1)
    found = torch.stack([likelihood.log_prob(parameters, each)[0] for each in x])
    return parameters, values.double(), found


@pytest.mark.parametrize("name", SUPPORTS)
def test_everything_adds_up_to_one(name: str) -> None:
    _, _, log_probs = everything(name)
    assert (log_probs.exp().sum(0) * SUPPORTS[name][2] - 1).abs().max() < 1e-5


@pytest.mark.parametrize("name", SUPPORTS)
def test_the_distribution_has_the_same_density_and_mean(name: str) -> None:
    parameters, values, log_probs = everything(name)
    likelihood, _, width = SUPPORTS[name]
    distribution = likelihood(parameters)
    x = values.view(-1, 1, 1).expand(-1, 5, 1)
    again = torch.stack([distribution.log_prob(each)[0] for each in x[::37]])
    assert torch.allclose(again, log_probs[::37], atol=1e-6)
    expected = (log_probs.exp() * values[:, None]).sum(0) * width
    assert torch.allclose(distribution.mean[0, :, 0], expected, atol=1e-4)


@pytest.mark.parametrize("name", SUPPORTS)
def test_draws_have_the_mean(name: str) -> None:
    parameters, values, log_probs = everything(name)
    likelihood, _, width = SUPPORTS[name]
    draws = likelihood(parameters).sample((20_000,))[:, 0, :, 0].double()
    mass = log_probs.exp() * width
    mean = (mass * values[:, None]).sum(0)
    spread = ((mass * values[:, None].square()).sum(0) - mean.square()).clamp(min=1e-12).sqrt()
    assert ((draws.mean(0) - mean) / (spread / 20_000**0.5 + 1e-6)).abs().max() < 5


EXTREMES = {
    **{name: (30.0, 1000.0) for name in SUPPORTS},
    "poisson": (20.0,),  # beyond, the rate overflows, and a kernel rejects
    "gaussian_predicted": (30.0,),
}


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name, scales in EXTREMES.items() for scale in scales])
def test_extreme_parameters_are_finite(name: str, scale: float) -> None:
    parameters, _, log_probs = everything(name, scale)
    assert torch.isfinite(log_probs).all()
    parameters = parameters.clone().requires_grad_()
    likelihood, values, _ = SUPPORTS[name]
    x = values.double()[:1].expand(5, 1)
    (gradient,) = torch.autograd.grad(likelihood.log_prob(parameters, x).sum(), parameters)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", SUPPORTS)
def test_derivatives(name: str) -> None:
    likelihood, values, _ = SUPPORTS[name]
    parameters = torch.randn(1, 2, *likelihood.parameter_shape((2,)), requires_grad=True)
    x = values.double()[[1, 0]][:, None].expand(2, 2)

    def log_prob(inputs: Tensor) -> Tensor:
        return likelihood.log_prob(inputs, x)

    if name != "categorical":  # 1024 numbers: its derivatives are those of a log-softmax
        assert torch.autograd.gradcheck(log_prob, (parameters,))
        assert torch.autograd.gradgradcheck(log_prob, (parameters,), atol=1e-4)


def test_against_torch() -> None:
    parameters, x = torch.randn(3, 4, 5), torch.rand(4, 5)
    expected = ContinuousBernoulli(logits=parameters).log_prob(x).sum(-1)
    assert torch.allclose(ContinuousBernoulliLikelihood().log_prob(parameters, x), expected, atol=1e-6)
    counts = torch.randint(0, 9, (4, 5)).double()
    assert torch.allclose(
        PoissonLikelihood().log_prob(parameters, counts), Poisson(parameters.exp()).log_prob(counts).sum(-1)
    )
    both, likelihood = torch.randn(3, 4, 10), GaussianLikelihood(0.4, predict_scale=True)
    scale = 0.4 * (torch.log1p((both[..., 5:]).exp() * (math.e - 1)) + 1e-6) + 0.01
    assert torch.allclose(likelihood.log_prob(both, x), Normal(both[..., :5], scale).log_prob(x).sum(-1))


def test_the_constant_of_the_continuous_bernoulli_is_smooth() -> None:
    """On both sides of where the series takes over, and in its derivatives."""
    logits = torch.tensor([-40.0, -0.5001, -0.4999, -1e-6, 0.0, 1e-9, 0.3, 0.4999, 0.5001, 3.0], requires_grad=True)
    exact = torch.where(logits.abs() < 1e-5, math.log(2), (logits / (logits / 2).tanh()).abs().log())
    assert torch.allclose(log_constant(logits)[logits != 0], exact[logits != 0], atol=1e-8)
    assert log_constant(torch.zeros(())) == math.log(2)
    (slope,) = torch.autograd.grad(log_constant(logits).sum(), logits)
    x = logits.detach()
    expected = torch.where(x.abs() < 1e-5, x / 6, 1 / x - 1 / x.sinh())
    assert torch.allclose(slope, expected, atol=1e-6)


def test_mistakes_are_refused() -> None:
    for kind in (GaussianLikelihood, DiscretizedLogisticLikelihood):
        with pytest.raises(ValueError, match="scale=0"):
            kind(0.0)
        with pytest.raises(ValueError, match="predict_scale=true"):
            kind(1.0, True, True)
    with pytest.raises(ValueError, match="smallest="):
        GaussianLikelihood(1.0, False, True, 0.0)
