"""Exact likelihoods: closed form, quadrature and importance sampling agree where each has them."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from metvae_cli.evaluation.exact import exact_likelihood, has_exact_likelihood
from metvae_cli.evaluation.frozen import freeze
from metvae_cli.evaluation.importance import importance_sampling
from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.hierarchical import HierarchicalPrior
from metvae_cli.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from metvae_cli.models.posteriors import mean_field_gaussian
from metvae_cli.models.priors import FlowPrior, MixturePrior, Prior, StandardNormal
from metvae_cli.models.vae import VAE, Likelihood
from tests.evaluation.linear_gaussian_data import numbered


class BroadEncoder(nn.Module):
    """q(z | x) = N(0, 1.2^2 I) whatever x."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, x: Tensor) -> Distribution:
        mean = x.new_zeros(len(x), self.latent_dim)
        return mean_field_gaussian(torch.cat([mean, mean + 0.28], -1))


def model(latent_dim: int, likelihood: Likelihood, hidden: tuple[int, ...] = (), prior: Prior | None = None) -> VAE:
    torch.manual_seed(0)
    decoder = MLPDecoder(latent_dim, (3,), hidden)
    return VAE(prior or StandardNormal(latent_dim), BroadEncoder(latent_dim), decoder, likelihood).double()


def net_of(vae: VAE) -> nn.Sequential:
    assert isinstance(vae.decoder, MLPDecoder)
    return vae.decoder.net


def data(count: int) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_closed_form_is_what_quadrature_gives(latent_dim: int) -> None:
    linear = model(latent_dim, GaussianLikelihood(0.7))
    closed = exact_likelihood(linear, numbered(data(5)))
    bent = copy.deepcopy(linear)
    net_of(bent).append(nn.Identity())  # no longer one linear map
    integrated = exact_likelihood(bent, numbered(data(5)), points=401)
    assert (closed.method, integrated.method) == ("closed form", "quadrature")
    assert (closed.per_datum - integrated.per_datum).abs().max() < 1e-8
    assert integrated.error.max() < 1e-6


def test_the_closed_form_in_many_dimensions() -> None:
    linear = model(5, GaussianLikelihood(0.7))
    layer = net_of(linear)[0]
    assert isinstance(layer, nn.Linear)
    covariance = layer.weight @ layer.weight.T + 0.49 * torch.eye(3, dtype=torch.float64)
    expected = MultivariateNormal(layer.bias, covariance).log_prob(data(5))
    assert (exact_likelihood(linear, numbered(data(5))).per_datum - expected).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["deep", "mixture"])
def test_quadrature_is_what_importance_sampling_approaches(kind: str) -> None:
    x = (data(10) > 0).double()
    prior = MixturePrior(2, 3) if kind == "mixture" else None
    deep = model(2, BernoulliLikelihood(), hidden=(8,), prior=prior)
    exact = exact_likelihood(deep, numbered(x), points=301)
    frozen = freeze(deep, torch.device("cpu"))
    estimate = importance_sampling(frozen, numbered(x), 200_000, chunk=20_000)
    error = (1 / estimate.effective_samples).sqrt()
    assert ((estimate.per_datum - exact.per_datum) / error).abs().max() < 5
    assert (estimate.per_datum - exact.per_datum).abs().max() < 0.02


def test_a_grid_that_is_too_coarse_says_so() -> None:
    narrow = model(1, GaussianLikelihood(0.01), hidden=(8,))
    x = narrow.decode(torch.zeros(1, 1, 1, dtype=torch.float64)).mean[0]
    assert exact_likelihood(narrow, numbered(x), points=21).error.max() > 0.1


def test_models_without_one() -> None:
    deep = model(3, BernoulliLikelihood(), hidden=(8,))
    assert not has_exact_likelihood(deep)
    assert not has_exact_likelihood(model(3, GaussianLikelihood(), prior=MixturePrior(3)))
    with pytest.raises(ValueError, match="more than two"):
        exact_likelihood(deep, numbered(data(1)))


@pytest.mark.parametrize("kind", ["flow", "two_levels", "mixture"])
def test_every_prior_has_a_grid_that_holds_it(kind: str) -> None:
    """Whatever the precision its draws come in; and the random state outside stays as it is."""
    torch.manual_seed(1)
    priors = {"flow": FlowPrior(2), "two_levels": HierarchicalPrior(2), "mixture": MixturePrior(2, 3)}
    prior = priors[kind]
    deep = model(prior.visible_dim, BernoulliLikelihood(), hidden=(8,), prior=prior)
    before = torch.get_rng_state()
    assert has_exact_likelihood(deep)
    found = exact_likelihood(deep, numbered((data(2) > 0).double()), points=301)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.prior_mass == pytest.approx(1, abs=1e-6)


def test_mass_that_the_grid_misses_is_missed_aloud() -> None:
    prior = MixturePrior(1, 2)
    with torch.no_grad():
        prior.means.copy_(torch.tensor([[0.0], [60.0]]))
        prior.logits.copy_(torch.tensor([0.0, -12.0]))
    rare = model(1, BernoulliLikelihood(), hidden=(8,), prior=prior)
    mass = exact_likelihood(rare, numbered((data(2) > 0).double()), points=301).prior_mass
    assert abs(mass - 1) > 1e-6
