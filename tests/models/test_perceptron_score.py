"""The closed form of a perceptron's score and what it is differentiated to, against automatic differentiation."""

from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from metvae_cli.models.activations import Activation, activation, curvature, name_of, pulled_back, value_of
from metvae_cli.models.base import Likelihood
from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.hierarchical import HierarchicalPrior
from metvae_cli.models.joint import JointDensity
from metvae_cli.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from metvae_cli.models.perceptron_score import PerceptronScore, closed_form, layers_of
from metvae_cli.models.priors import MixturePrior, Prior, StandardNormal
from metvae_cli.scores import value_and_score

ACTIVATIONS: Sequence[Activation] = get_args(Activation)
SHAPE = (1, 2, 4)


class Setting:
    """A decoder, data and positions, in double precision."""

    def __init__(self, hidden: Sequence[int] = (7, 5), name: Activation = "gelu", dim: int = 3) -> None:
        self.decoder = MLPDecoder(dim, SHAPE, hidden, name).double()
        self.x = torch.bernoulli(torch.full((5, *SHAPE), 0.5)).double()
        self.z = torch.randn(2, 5, dim, dtype=torch.float64, requires_grad=True)
        self.likelihood = BernoulliLikelihood()

    def closed(self) -> tuple[Tensor, Tensor]:
        layers = layers_of(self.decoder.net)
        assert layers is not None
        return PerceptronScore(layers, self.likelihood)(self.z, self.x)

    def generic(self) -> tuple[Tensor, Tensor]:
        value = self.likelihood.log_prob(self.decoder(self.z), self.x)
        return value, torch.autograd.grad(value.sum(), self.z, create_graph=True)[0]

    def gradients(self, loss: Tensor) -> list[Tensor]:
        parameters = [self.z, *self.decoder.parameters()]
        found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "value": lambda value, score: value.sin().sum(),
    "score": lambda value, score: (score**3).sum(),
    "both": lambda value, score: (value[..., None] * score.sin()).sum() + value.square().mean(),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", [(), (7,), (7, 5, 6)])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_equals_automatic_differentiation(name: Activation, hidden: Sequence[int], loss: str) -> None:
    setting = Setting(hidden, name)
    for closed, generic in zip(setting.closed(), setting.generic(), strict=True):
        assert torch.allclose(closed, generic, rtol=1e-12, atol=1e-12)
    expected = setting.gradients(LOSSES[loss](*setting.generic()))
    found = setting.gradients(LOSSES[loss](*setting.closed()))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-11)


class Straight(BernoulliLikelihood):
    """A wrong one: as if the log-likelihood were linear in the logits."""

    def curvature(self, slope: Tensor, x: Tensor) -> Tensor:
        return torch.zeros_like(slope)


class Shifted(BernoulliLikelihood):
    """Another wrong one."""

    def slope(self, parameters: Tensor, x: Tensor) -> Tensor:
        return super().slope(parameters, x) + 0.01


@pytest.mark.parametrize("wrong", [Straight, Shifted])
def test_a_wrong_derivative_is_seen(wrong: type[BernoulliLikelihood]) -> None:
    setting = Setting()
    expected = setting.gradients(LOSSES["both"](*setting.generic()))
    setting.likelihood = wrong()
    found = setting.gradients(LOSSES["both"](*setting.closed()))
    assert not all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_activations(name: Activation) -> None:
    a = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    expected = activation(name)(a)
    (first,) = torch.autograd.grad(expected.sum(), a, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), a)
    value, slope = value_of(name, a.detach()), pulled_back(name, a.detach(), torch.ones_like(a))
    for one, other in ((value, expected), (slope, first), (curvature(name, a.detach()), second)):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    assert name_of(activation(name)) == name


def test_without_gradients_nothing_is_kept() -> None:
    setting = Setting()
    with torch.no_grad():
        value, score = setting.closed()
    assert not value.requires_grad
    assert not score.requires_grad
    assert torch.allclose(score, setting.generic()[1])


def test_a_third_derivative_is_refused() -> None:
    """It would be wrong, since what the backward pass uses is held fixed."""
    setting = Setting()
    _, score = setting.closed()
    (gradient,) = torch.autograd.grad(score.square().sum(), setting.z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_several_models_side_by_side() -> None:
    """Under vmap, with weights and positions of their own, as alone."""
    settings = [Setting() for _ in range(3)]
    names = [name for name, _ in settings[0].decoder.named_parameters()]
    stacked = {
        name: torch.stack([dict(s.decoder.named_parameters())[name].detach() for s in settings]).requires_grad_()
        for name in names
    }
    z = torch.stack([s.z.detach() for s in settings]).requires_grad_()

    def loss(parameters: dict[str, Tensor], z: Tensor, x: Tensor) -> Tensor:
        decoder = settings[0].decoder
        own = {name: parameter for name, parameter in decoder.named_parameters()}
        for name, parameter in parameters.items():
            module, last = decoder.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
            module._parameters[last] = parameter  # pyright: ignore[reportArgumentType]
        try:
            form = closed_form(decoder, settings[0].likelihood)
            assert form is not None
            return LOSSES["both"](*form(z, x))
        finally:
            for name, parameter in own.items():
                decoder.get_submodule(name.rpartition(".")[0])._parameters[name.rpartition(".")[2]] = parameter

    total = torch.vmap(loss)(stacked, z, torch.stack([s.x for s in settings])).sum()
    found = torch.autograd.grad(total, [z, *stacked.values()])
    for index, setting in enumerate(settings):
        for together, alone in zip(found, setting.gradients(LOSSES["both"](*setting.generic())), strict=True):
            assert torch.allclose(together[index], alone, rtol=1e-10)


class OwnDecoder(MLPDecoder):
    """One that may do anything in its forward pass."""


def odd(net: nn.Sequential) -> MLPDecoder:
    decoder = MLPDecoder(3, SHAPE, (4,))
    decoder.net = net
    return decoder


@pytest.mark.parametrize(
    "decoder",
    [
        OwnDecoder(3, SHAPE, (4,)),
        odd(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 8))),
        odd(nn.Sequential(nn.Linear(3, 4), nn.GELU(approximate="tanh"), nn.Linear(4, 8))),
        odd(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 8))),
        odd(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 8, bias=False))),
        odd(nn.Sequential(nn.Linear(3, 8), nn.GELU())),
        odd(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 8)))),
    ],
)
def test_what_it_does_not_know_it_leaves_alone(decoder: MLPDecoder) -> None:
    assert closed_form(decoder, BernoulliLikelihood()) is None


class Tempered(BernoulliLikelihood):
    """A density of its own with derivatives that are not its own."""

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return 0.5 * super().log_prob(parameters, x)


class Weighted(Tempered):
    """All of its own, and something learned."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return self.weight * super().log_prob(parameters, x)

    def slope(self, parameters: Tensor, x: Tensor) -> Tensor:
        return self.weight * super().slope(parameters, x)

    def curvature(self, slope: Tensor, x: Tensor) -> Tensor:
        return super().curvature(slope / self.weight, x) * self.weight


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(), Tempered(), Weighted()])
def test_a_likelihood_that_it_does_not_know_is_left_alone(likelihood: Likelihood) -> None:
    assert closed_form(MLPDecoder(3, SHAPE), likelihood) is None


def test_a_likelihood_that_it_knows_is_taken() -> None:
    assert isinstance(closed_form(MLPDecoder(3, SHAPE), BernoulliLikelihood()), PerceptronScore)


@pytest.mark.parametrize("weight", [1.0, 2.5])
@pytest.mark.parametrize("prior", [StandardNormal(4), MixturePrior(4, 3), HierarchicalPrior(4, 1)])
def test_joint_density(prior: Prior, weight: float) -> None:
    """Its score is the gradient of its value, with coordinates that the decoder does not see and any weight."""
    prior = prior.double()
    setting = Setting(dim=prior.visible_dim)
    joint = JointDensity(prior, setting.decoder, setting.likelihood, setting.x, weight)
    z = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    for value, score in (joint.with_score(z), value_and_score(joint, z, create_graph=True, differentiable=True)):
        expected = joint(z)
        assert torch.allclose(value, expected, rtol=1e-12)
        (gradient,) = torch.autograd.grad(expected.sum(), z, create_graph=True)
        assert torch.allclose(score, gradient, rtol=1e-11, atol=1e-12)
        parameters = [z, *setting.decoder.parameters(), *prior.parameters()]
        losses = ((value.sin() * score.sum(-1)).sum(), (expected.sin() * gradient.sum(-1)).sum())
        found, wanted = (torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses)
        assert all(torch.allclose(one, other, rtol=1e-10, atol=1e-11) for one, other in zip(found, wanted, strict=True))
