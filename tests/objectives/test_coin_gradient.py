"""The gradient of a flow's coin, and of the flow, against enumeration of directions and decisions (one step, D = 1)."""

import math
from typing import Any

import pytest
import torch
from numpy.polynomial.hermite import hermgauss
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn.functional import logsigmoid

from metvae_cli.bijections import Bijection
from metvae_cli.kernels.flow import Coin, Flow
from metvae_cli.objectives.weights import WeightObjective
from metvae_cli.samplers.assembly import AcceptanceName, make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from metvae_cli.scores import LogDensity

pytestmark = pytest.mark.usefixtures("double")
MEAN, SCALE = 0.3, 0.9


def log_target(z: Tensor) -> Tensor:
    return Normal(1.2, 0.6).log_prob(z)


class Affine(Bijection):
    """T w = e^s w + t."""

    def __init__(self, log_slope: Tensor, shift: Tensor) -> None:
        nn.Module.__init__(self)
        self.log_slope, self.shift = nn.Parameter(log_slope), nn.Parameter(shift)

    def forward(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.log_slope.exp() * w + self.shift, self.log_slope.expand(w.shape[:-1])

    def inverse(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (w - self.shift) * (-self.log_slope).exp(), -self.log_slope.expand(w.shape[:-1])


class Model:
    def posterior(self, x: Tensor) -> Independent:
        return Independent(Normal(torch.full((len(x), 1), MEAN), torch.full((len(x), 1), SCALE)), 1)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        return lambda z: log_target(z[..., 0])


def exact_bound(log_slope: Tensor, shift: Tensor, logit: Tensor, acceptance: AcceptanceName) -> Tensor:
    """The bound with z_0 on quadrature nodes, both directions and both decisions summed: from the equations alone."""
    roots, weights = (torch.tensor(a) for a in hermgauss(80))
    z_0, chance = MEAN + SCALE * 2**0.5 * roots, weights / math.pi**0.5
    total = torch.zeros(())
    for v in (1, -1):
        probability, opposite = torch.sigmoid(v * logit), torch.sigmoid(-v * logit)
        moved = log_slope.exp() * z_0 + shift if v == 1 else (z_0 - shift) / log_slope.exp()
        correction = v * log_slope + opposite.log() - probability.log()
        start = log_target(z_0) - Normal(MEAN, SCALE).log_prob(z_0)
        ratio = log_target(moved) - log_target(z_0) + correction
        if acceptance == "none":
            total = total + (chance * probability * (start + ratio)).sum()
            continue
        accept, log_accept, log_reject = torch.sigmoid(ratio), logsigmoid(ratio), logsigmoid(-ratio)
        taken = accept * (start + ratio - log_accept) + (1 - accept) * (start - log_reject)
        total = total + (chance * probability * (taken - math.log(2))).sum()
    return total


@pytest.mark.parametrize("acceptance", ["barker", "none"])
def test_the_gradient_of_a_learned_coin_is_exact(acceptance: AcceptanceName) -> None:
    values = [torch.tensor(value, requires_grad=True) for value in (0.25, 0.4, 0.6)]
    expected_value = exact_bound(*values, acceptance)  # pyright: ignore[reportCallIssue]
    expected = torch.stack(torch.autograd.grad(expected_value, values))
    coin = Coin(torch.sigmoid(values[2].detach()).item(), learned=True)
    flow = Flow(Affine(values[0].detach(), values[1].detach()), coin)
    sampler = Sampler([make_kernel(flow, acceptance)], make_schedule("constant", 1))
    objective = WeightObjective("reversal" if acceptance == "none" else "path", "mean", 2)
    parameters: list[Any] = [flow.bijection.log_slope, flow.bijection.shift, coin.logit]
    full, pathwise, bounds = [], [], []
    for _ in range(40):
        output = objective(Model(), sampler, torch.zeros(20_000, 1))
        assert output.score_loss is not None
        score = torch.autograd.grad(-output.score_loss, parameters, retain_graph=True, allow_unused=True)
        full.append(torch.stack(torch.autograd.grad(-output.loss, parameters)))
        missing = torch.stack([torch.zeros(()) if part is None else part for part in score])
        pathwise.append(full[-1] - missing)
        bounds.append(output.bound.mean())
    found, wrong, values_found = torch.stack(full), torch.stack(pathwise), torch.stack(bounds)
    error = found.std(0) / len(found) ** 0.5
    assert abs(values_found.mean() - expected_value) < 5 * values_found.std() / len(bounds) ** 0.5
    assert ((found.mean(0) - expected) / error).abs().max() < 5
    assert abs((wrong.mean(0) - expected)[2] / error[2]) > 5  # without the score-function term the coin learns wrongly
