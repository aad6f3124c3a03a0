"""Renyi bounds, and the gradients that hold log q fixed: the same mean as the plain one, and none at the posterior."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from metvae_cli.models.encoders import MLPEncoder
from metvae_cli.models.hierarchical import HierarchicalEncoder
from metvae_cli.objectives import functionals
from metvae_cli.objectives.weights import WeightObjective
from metvae_cli.samplers.assembly import make_schedule
from metvae_cli.samplers.chain import Sampler
from metvae_cli.scores import LogDensity
from tests.kernels.cases import stir
from tests.objectives.linear_gaussian import LinearGaussian

pytestmark = pytest.mark.usefixtures("double")
NONE = Sampler([], make_schedule("constant", 0))
X = torch.tensor([[0.9, -0.4, 1.1]], dtype=torch.float64)


class Line:
    """p(z, x) proportional to N(z; target, 1) with a learned target; q = N(mean, e^(2 log_scale))."""

    def __init__(self, mean: float, log_scale: float, target: float) -> None:
        self.inference = nn.ParameterDict({"mean": torch.tensor(mean), "log_scale": torch.tensor(log_scale)})
        self.generative = nn.ParameterDict({"target": torch.tensor(target)})

    def posterior(self, x: Tensor) -> Independent:
        scale = self.inference["log_scale"].exp().expand(len(x), 1)
        return Independent(Normal(self.inference["mean"].expand(len(x), 1), scale), 1)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        return lambda z: Normal(self.generative["target"], 1.0).log_prob(z).sum(-1) + 0.7

    def parameters(self) -> list[nn.Parameter]:
        return [*self.inference.parameters(), *self.generative.parameters()]


def estimates(model: "Line | Carried", gradient: Any, functional: Any) -> Tensor:
    """40 estimates of the gradient on 5000 data each, (40, parameters)."""
    objective = WeightObjective("none", functional, 5, gradient=gradient)
    rows = []
    for _ in range(40):
        loss = objective(model, NONE, X.expand(5000, 3)).loss
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(-loss, model.parameters())]))
    return torch.stack(rows)


@pytest.mark.parametrize(("gradient", "functional"), [("stl", "mean"), ("dreg", "mean"), ("dreg", "log_mean_exp")])
def test_the_mean_gradient_is_the_plain_one(gradient: str, functional: str) -> None:
    model = Line(0.4, -0.3, 1.0)
    plain, other = estimates(model, "plain", functional), estimates(model, gradient, functional)
    error = (plain.var(0) / len(plain) + other.var(0) / len(other)).sqrt()
    assert ((plain.mean(0) - other.mean(0)) / error).abs().max() < 5
    assert (plain.mean(0) / error).abs().min() > 5  # there is a gradient to agree on


def test_sticking_the_landing_of_several_samples_is_biased_and_the_judge_sees_it() -> None:
    """For log-mean-exp, holding log q fixed alone drops a part of the gradient that does not vanish."""
    model = Line(0.4, -0.3, 1.0)
    plain, other = estimates(model, "plain", "log_mean_exp"), estimates(model, "stl", "log_mean_exp")
    error = (plain.var(0) / len(plain) + other.var(0) / len(other)).sqrt()
    assert ((plain.mean(0) - other.mean(0)) / error).abs().max() > 5


class Carried:
    """p(z, x) proportional to N(z; (1, -1), I); q(z | x) an encoder with a network that is asked again for log q."""

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder
        stir(encoder, seed=3, scale=0.5)

    def posterior(self, x: Tensor) -> Distribution:
        return self.encoder(x)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        return Independent(Normal(torch.tensor([1.0, -1.0]), 1.0), 1).log_prob

    def parameters(self) -> list[nn.Parameter]:
        return list(self.encoder.parameters())


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "realnvp": lambda: MLPEncoder((3,), 2, (4,), flow="realnvp", flow_layers=2, flow_hidden=(4,)),
    "maf": lambda: MLPEncoder((3,), 2, (4,), flow="maf", flow_layers=1, flow_hidden=(4,)),
    "iaf": lambda: MLPEncoder((3,), 2, (4,), flow="iaf", flow_layers=1, flow_hidden=(4,)),
    "two levels": lambda: HierarchicalEncoder((3,), 2, 1, (4,), (4,)),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_log_q_is_held_fixed_where_the_encoder_goes_on_after_its_network(encoder: str, gradient: Any) -> None:
    model = Carried(ENCODERS[encoder]())
    objective = WeightObjective("none", "log_mean_exp", 3, gradient=gradient)
    z = torch.randn(3, 1, 2)
    held = objective._log_initial(model, model.posterior(X), X)
    assert not held(z).requires_grad
    assert torch.equal(held(z), model.posterior(X).log_prob(z))
    through = torch.autograd.grad(held(z.requires_grad_()).sum(), z)[0]
    assert torch.equal(through, torch.autograd.grad(model.posterior(X).log_prob(z).sum(), z)[0])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_mean_gradient_of_such_an_encoder_is_the_plain_one(encoder: str) -> None:
    model = Carried(ENCODERS[encoder]())
    plain, other = estimates(model, "plain", "log_mean_exp"), estimates(model, "dreg", "log_mean_exp")
    error = (plain.var(0) / len(plain) + other.var(0) / len(other)).sqrt()
    moved = error > 1e-12  # masked weights have no gradient
    apart = ((plain.mean(0) - other.mean(0)) / error)[moved]
    assert apart.abs().max() < 5.5
    assert (plain.mean(0) / error)[moved].abs().max() > 20


@pytest.mark.parametrize(("gradient", "functional"), [("stl", "mean"), ("dreg", "log_mean_exp")])
def test_there_is_no_noise_at_the_posterior(gradient: str, functional: str) -> None:
    at_posterior = Line(1.0, 0.0, 1.0)
    found = estimates(at_posterior, gradient, functional)[:, :2]
    assert found.abs().max() < 1e-12
    assert estimates(at_posterior, "plain", functional)[:, :2].abs().max() > 1e-3


@pytest.mark.parametrize("gradient", ["plain", "stl", "dreg"])
def test_the_value_of_the_loss_is_the_bound(gradient: Any) -> None:
    output = WeightObjective("none", "log_mean_exp", 5, gradient=gradient)(Line(0.4, -0.3, 1.0), NONE, X)
    assert torch.allclose(output.loss, -output.bound.mean())


def test_renyi_bounds_at_their_known_orders() -> None:
    weights = torch.randn(6, 100)
    assert torch.allclose(functionals.renyi(1.0)(weights, 0), weights.mean(0))
    assert torch.allclose(functionals.renyi(0.0)(weights, 0), functionals.log_mean_exp(weights, 0))
    assert torch.allclose(functionals.renyi(-math.inf)(weights, 0), weights.amax(0))
    for near in (1 - 1e-5, 1 + 1e-5):
        assert torch.allclose(functionals.renyi(near)(weights, 0), weights.mean(0), atol=1e-4)


@pytest.mark.parametrize("near", [1 - 1e-3, 1 + 1e-3, 1 + 1e-6, 1 - 1e-9, 1 + 1e-15])
def test_renyi_bounds_near_their_singular_order_are_not_lost_to_rounding(near: float) -> None:
    """In single precision, against the expansion mean + (1 - alpha) variance / 2; the plain formula is off by nats."""
    weights = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float32) - 90
    expected = weights.double().mean(0) + (1 - near) / 2 * weights.double().var(0, correction=0)
    found = functionals.renyi(near)(weights.clone().requires_grad_(), 0)
    assert (found.double() - expected).abs().max() < 1e-4
    assert torch.isfinite(torch.autograd.functional.jacobian(lambda w: functionals.renyi(near)(w, 0), weights)).all()
    if abs(1 - near) < 1e-5:
        plain = functionals.log_mean_exp((1 - near) * weights, 0) / (1 - near)
        assert not (plain - expected).abs().max() < 0.01


def test_renyi_bounds_fall_with_their_order() -> None:
    weights = 2 * torch.randn(6, 100)
    values = [functionals.renyi(alpha)(weights, 0) for alpha in (-math.inf, -2.0, 0.0, 0.5, 1.0, 2.0, 5.0)]
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(values))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 2.0])
def test_a_renyi_bound_of_many_samples_is_that_of_the_gaussians(alpha: float) -> None:
    """1 / (1 - alpha) log E_q[(p / q)^(1 - alpha)] for two Gaussians, in closed form."""
    model = Line(0.6, 0.1, 1.0)
    with torch.no_grad():
        bound = WeightObjective("none", "renyi", 400_000, alpha=alpha)(model, NONE, X).bound
    variance, gap = math.exp(0.2), 0.4
    mixed = alpha * 1.0 + (1 - alpha) * variance  # of q^alpha p^(1 - alpha), for p of variance 1
    log_scales = 0.5 * (math.log(mixed) - (1 - alpha) * math.log(variance) - alpha * math.log(1.0))
    exact = 0.7 - 0.5 * alpha * gap**2 / mixed - log_scales / (1 - alpha)
    assert float(bound) == pytest.approx(exact, abs=0.01)


def test_exact_weights_make_every_order_exact() -> None:
    for alpha in (-1.0, 0.5, 3.0):
        output = WeightObjective("none", "renyi", 5, alpha=alpha)(LinearGaussian(), NONE, X)
        assert abs(output.bound - LinearGaussian().log_evidence(X)).max() < 1e-9


def test_mistakes_are_refused_and_notes_given() -> None:
    for alpha in (math.nan, math.inf):
        with pytest.raises(ValueError, match="alpha="):
            WeightObjective("none", "renyi", 2, alpha=alpha)
    for bookkeeping, functional in (("path", "mean"), ("none", "renyi")):
        with pytest.raises(ValueError, match="gradient=dreg"):
            WeightObjective(bookkeeping, functional, 2, gradient="dreg")  # pyright: ignore
    assert "biased" in WeightObjective("none", "log_mean_exp", 2, gradient="stl").validate(NONE)[0]
    assert "neither side" in WeightObjective("none", "renyi", 2, alpha=-1.0).validate(NONE)[0]
