"""Models: likelihoods against torch's distributions, shapes, gradients to every parameter."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal

from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.unadjusted import Unadjusted
from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.encoders import MLPEncoder
from metvae_cli.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from metvae_cli.models.nets import mlp
from metvae_cli.models.priors import StandardNormal
from metvae_cli.models.vae import VAE
from metvae_cli.objectives.weights import WeightObjective
from metvae_cli.samplers.assembly import make_schedule
from metvae_cli.samplers.chain import Sampler

SHAPE = (1, 3, 4)


def make_model(likelihood: BernoulliLikelihood | GaussianLikelihood, hidden: Sequence[int] = (6,)) -> VAE:
    return VAE(StandardNormal(2), MLPEncoder(SHAPE, 2, hidden), MLPDecoder(2, SHAPE, hidden), likelihood)


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_the_terms_that_are_logged_are_reconstruction_and_kl(weight: float) -> None:
    """Of a chain, so that its start and its end differ, and with a warm-up's weight of the likelihood."""
    model, x = make_model(BernoulliLikelihood()), torch.bernoulli(torch.full((5, *SHAPE), 0.5))
    sampler = Sampler([Unadjusted(Langevin(StepSize(0.3)))], make_schedule("linear", 1))
    output = WeightObjective("reversal", "mean", 2)(model, sampler, x, weight)
    assert not torch.equal(output.initial.z, output.final.z)
    terms = model.terms(output.initial, output.final, weight)
    reconstruction = model.decode(output.final.z).log_prob(x).mean()
    kl = (model.posterior(x).log_prob(output.initial.z) - model.prior.log_prob(output.initial.z)).mean()
    assert terms["reconstruction"].item() == pytest.approx(reconstruction.item(), rel=1e-5)
    assert terms["kl"].item() == pytest.approx(kl.item(), rel=1e-5)


def test_bernoulli_log_prob() -> None:
    logits, x = 5 * torch.randn(4, 6, *SHAPE), torch.bernoulli(torch.full((6, *SHAPE), 0.5))
    expected = Independent(Bernoulli(logits=logits), 3).log_prob(x)
    likelihood = BernoulliLikelihood()
    assert torch.allclose(likelihood.log_prob(logits, x), expected, atol=1e-4)
    assert torch.allclose(likelihood(logits).log_prob(x), expected, atol=1e-4)


@pytest.mark.parametrize("learn_scale", [True, False])
def test_gaussian_log_prob(learn_scale: bool) -> None:
    means, x = torch.randn(4, 6, *SHAPE), torch.randn(6, *SHAPE)
    likelihood = GaussianLikelihood(scale=0.3, learn_scale=learn_scale)
    expected = Independent(Normal(means, 0.3), 3).log_prob(x)
    assert torch.allclose(likelihood.log_prob(means, x), expected, rtol=1e-4)
    assert torch.allclose(likelihood(means).log_prob(x), expected, rtol=1e-4)
    assert len(list(likelihood.parameters())) == int(learn_scale)


def test_extreme_logits_are_finite() -> None:
    logits = torch.tensor([200.0, -200.0]).view(1, 1, 2)
    for x in (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])):
        assert torch.isfinite(BernoulliLikelihood().log_prob(logits, x)).all()


def test_joint_is_prior_times_likelihood() -> None:
    model, x, z = make_model(GaussianLikelihood()), torch.randn(5, *SHAPE), torch.randn(3, 5, 2)
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1).log_prob(z)
    likelihood = model.decode(z).log_prob(x)
    assert torch.allclose(model.joint(x)(z), prior + likelihood, rtol=1e-4)
    assert torch.allclose(model.joint(x, 2.5)(z), prior + 2.5 * likelihood, rtol=1e-4)


def test_shapes() -> None:
    model = make_model(BernoulliLikelihood())
    posterior = model.posterior(torch.zeros(5, *SHAPE))
    assert posterior.batch_shape == (5,)
    assert posterior.event_shape == (2,)
    assert model.decode(torch.zeros(3, 5, 2)).batch_shape == (3, 5)
    assert model.decode(torch.zeros(3, 5, 2)).mean.shape == (3, 5, *SHAPE)


def test_the_encoder_starts_near_the_prior() -> None:
    scale = MLPEncoder(SHAPE, 2, hidden=())(torch.zeros(1, *SHAPE)).stddev
    assert ((scale > 0.5) & (scale < 2)).all()


@pytest.mark.parametrize("likelihood", [BernoulliLikelihood(), GaussianLikelihood(learn_scale=True)])
def test_gradients_reach_every_parameter(likelihood: BernoulliLikelihood | GaussianLikelihood) -> None:
    model, x = make_model(likelihood), torch.bernoulli(torch.full((5, *SHAPE), 0.5))
    posterior = model.posterior(x)
    z = posterior.rsample((2,))
    (model.joint(x)(z) - posterior.log_prob(z)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("name", ["gelu", "silu", "softplus", "tanh"])
def test_activations_are_twice_differentiable(name: str) -> None:
    """Second derivatives are not zero, as a ReLU's would be."""
    net = mlp(1, (8,), 1, name).double()  # pyright: ignore[reportArgumentType]

    def value(z: Tensor) -> Tensor:
        return net(z).sum()

    curvature = torch.autograd.functional.hessian(value, torch.randn(1, dtype=torch.float64))
    assert abs(float(curvature)) > 0  # pyright: ignore[reportArgumentType]


def test_no_hidden_layer_is_one_linear_map() -> None:
    assert len(mlp(3, (), 2, "gelu")) == 1


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden="):
        mlp(3, (4, 0), 2, "gelu")
    for scale in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="scale="):
            GaussianLikelihood(scale)
