"""Scores in closed form against automatic differentiation, and what survives of a graph."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from metvae_cli.gaussians import DiagonalGaussian, StandardNormalDensity
from metvae_cli.objectives.weights import density_of
from metvae_cli.scores import LogDensity, ScoredDensity, value_and_score

Z = torch.randn(3, 5, 2, dtype=torch.float64)
MEAN = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
SCALE = (0.5 + torch.rand(5, 2, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("density", [DiagonalGaussian(MEAN, SCALE).density(), StandardNormalDensity()])
def test_gaussians(density: ScoredDensity) -> None:
    """Value, score and the gradients of both are those of torch's distribution."""
    z, learned = Z.clone().requires_grad_(), not isinstance(density, StandardNormalDensity)
    ends = (MEAN, SCALE) if learned else (torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    expected = Independent(Normal(*ends), 1).log_prob(z)
    (gradient,) = torch.autograd.grad(expected.sum(), z, create_graph=True)
    value, score = density.with_score(z, differentiable=True)
    assert torch.allclose(value, expected, rtol=1e-12)
    assert torch.allclose(density(z), expected, rtol=1e-12)
    assert torch.allclose(score, gradient, rtol=1e-12)
    inputs = [z, MEAN, SCALE] if learned else [z]
    losses = ((value.sin() * score.square().sum(-1)).sum(), (expected.sin() * gradient.square().sum(-1)).sum())
    found, wanted = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in losses)
    assert all(torch.allclose(one, other, rtol=1e-10) for one, other in zip(found, wanted, strict=True))


def test_the_distribution_says_what_torchs_does() -> None:
    own, torchs = DiagonalGaussian(MEAN, SCALE), Independent(Normal(MEAN, SCALE), 1)
    assert torch.equal(own.mean, torchs.mean)
    assert torch.allclose(own.stddev, torchs.stddev)
    assert torch.allclose(own.log_prob(Z), torchs.log_prob(Z), rtol=1e-12)
    for one, other in ((own.variance, torchs.variance), (own.entropy(), torchs.entropy()), (own.mode, torchs.mode)):
        assert torch.allclose(one, other, rtol=1e-12)
    draws = []
    for law in (own, torchs):
        torch.manual_seed(0)
        draws.append(law.rsample(torch.Size((3,))))
    assert torch.allclose(*draws, rtol=1e-12)  # the same numbers of the same stream
    assert own.batch_shape == torchs.batch_shape
    assert own.event_shape == torchs.event_shape


class Quartic(ScoredDensity):
    """-a sum z^4."""

    def __init__(self, a: Tensor) -> None:
        self.a = a

    def __call__(self, z: Tensor) -> Tensor:
        return -self.a * (z**4).sum(-1)

    def with_score(self, z: Tensor, *, differentiable: bool) -> tuple[Tensor, Tensor]:
        return self(z), -4 * self.a * z**3


class Plain:
    """The same, without a closed form."""

    def __init__(self, density: LogDensity) -> None:
        self.density = density

    def __call__(self, z: Tensor) -> Tensor:
        return self.density(z)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize("differentiable", [True, False])
def test_graphs_are_kept_as_asked(closed: bool, create_graph: bool, differentiable: bool) -> None:
    if differentiable and not create_graph:
        return
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    density: LogDensity = Quartic(a) if closed else Plain(Quartic(a))
    z = Z.clone().requires_grad_()
    value, score = value_and_score(density, z, create_graph=create_graph, differentiable=differentiable)
    assert torch.allclose(score, -1.2 * Z**3)
    assert torch.allclose(value, -0.3 * (Z**4).sum(-1))
    assert value.requires_grad == create_graph
    assert score.requires_grad == differentiable
    if create_graph:
        assert torch.allclose(torch.autograd.grad(value.sum(), a, retain_graph=True)[0], -(Z**4).sum())
    if differentiable:
        assert torch.allclose(torch.autograd.grad(score.sum(), a)[0], -4 * (Z**3).sum())


def test_a_density_that_does_not_depend_on_z_has_a_score_of_zero() -> None:
    level = torch.tensor(0.3, requires_grad=True)
    for density in (lambda z: z.new_zeros(z.shape[:-1]), lambda z: level.expand(z.shape[:-1])):
        value, score = value_and_score(density, Z, create_graph=True, differentiable=True)
        assert value.shape == Z.shape[:-1]
        assert torch.equal(score, torch.zeros_like(Z))


def test_a_density_with_another_law_than_its_base_class_is_asked_for_its_own() -> None:
    class Doubled(DiagonalGaussian):
        def log_prob(self, value: Tensor) -> Tensor:
            return 2 * super().log_prob(value)

    assert torch.equal(density_of(Doubled(MEAN, SCALE))(Z), 2 * DiagonalGaussian(MEAN, SCALE).log_prob(Z))
