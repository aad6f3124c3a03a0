"""The chi upper bound between normals, where every expectation is known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from metvae_cli.objectives.cubo import ChiObjective, upper_bound
from metvae_cli.objectives.functionals import log_mean_exp
from metvae_cli.objectives.weights import WeightObjective
from metvae_cli.samplers.assembly import make_schedule
from metvae_cli.samplers.chain import Sampler
from metvae_cli.scores import LogDensity

pytestmark = pytest.mark.usefixtures("double")
NONE = Sampler([], make_schedule("constant", 0))
LOG_EVIDENCE = 0.7
X = torch.zeros(1, 1, dtype=torch.float64)


class Line:
    """p(x, z) = e^0.7 N(z; target, 1), q = N(mean, e^(2 log_scale))."""

    def __init__(self, mean: float = 0.4, log_scale: float = 0.1, target: float = 1.0) -> None:
        self.inference = nn.ParameterDict({"mean": torch.tensor(mean), "log_scale": torch.tensor(log_scale)})
        self.generative = nn.ParameterDict({"target": torch.tensor(target)})

    def posterior(self, x: Tensor) -> Independent:
        scale = self.inference["log_scale"].exp().expand(len(x), 1)
        return Independent(Normal(self.inference["mean"].expand(len(x), 1), scale), 1)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        return lambda z: Normal(self.generative["target"], 1.0).log_prob(z).sum(-1) + LOG_EVIDENCE

    def inference_parameters(self) -> list[nn.Parameter]:
        return [self.inference["mean"], self.inference["log_scale"]]

    def generative_parameters(self) -> list[nn.Parameter]:
        return list(self.generative.parameters())


def exact(order: float, mean: Tensor, log_scale: Tensor, target: float = 1.0) -> Tensor:
    """1/n log E_q[w^n] = log p(x) + (1/n) log of the integral of N(target, 1)^n N(mean, s^2)^(1 - n).

    The integrand is a normal density of precision a = n + (1 - n) / s^2 up to its constant; a > 0 is needed.
    """
    precision = (-2 * log_scale).exp()
    total = order + (1 - order) * precision
    centre = (order * target + (1 - order) * precision * mean) / total
    constant = -0.5 * (order * target**2 + (1 - order) * precision * mean**2 - total * centre**2)
    constant = constant + (order - 1) * log_scale - 0.5 * total.log()
    return LOG_EVIDENCE + constant / order


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
def test_the_upper_bound_is_the_integral_and_above(order: float) -> None:
    mean, log_scale = torch.tensor(0.4), torch.tensor(0.1)
    z = Normal(mean, log_scale.exp()).sample((2_000_000,))
    log_weights = Normal(1.0, 1.0).log_prob(z) + LOG_EVIDENCE - Normal(mean, log_scale.exp()).log_prob(z)
    found, expected = upper_bound(log_weights[:, None], order)[0], exact(order, mean, log_scale)
    powers = (order * (log_weights - LOG_EVIDENCE)).exp()
    error = powers.std() / powers.mean() / math.sqrt(len(z)) / order
    assert abs(found - expected) < 5 * error
    assert expected >= LOG_EVIDENCE - 1e-12
    assert (expected > LOG_EVIDENCE + 0.01) == (order > 1)
    assert upper_bound(log_weights[:, None], order)[0] <= log_weights.max()


def test_the_encoder_descends_the_upper_bound() -> None:
    """Its mean gradient has the direction of the exact one; that of the ELBO has not."""
    model, order = Line(), 2.0
    parameters = model.inference_parameters()
    mean, log_scale = (value.detach().requires_grad_() for value in parameters)
    expected = torch.stack(torch.autograd.grad(exact(order, mean, log_scale), [mean, log_scale]))
    rows = {}
    for name, objective in {"chi": ChiObjective(20, order), "elbo": WeightObjective("none", "mean", 20)}.items():
        losses = (objective(model, NONE, X.expand(20_000, 1)).loss for _ in range(30))
        rows[name] = torch.stack([torch.stack(torch.autograd.grad(loss, parameters)) for loss in losses])

    def angle_score(gradients: Tensor) -> float:
        """How many standard errors the part across the exact gradient lies from 0."""
        across = gradients @ torch.stack([-expected[1], expected[0]])
        return float(abs(across.mean()) / (across.std() / len(across) ** 0.5))

    assert angle_score(rows["chi"]) < 5
    assert (rows["chi"].mean(0) @ expected) > 0
    assert angle_score(rows["elbo"]) > 5


def test_the_decoder_ascends_the_importance_weighted_bound() -> None:
    model, x = Line(), X.expand(50, 1)
    parameters = model.generative_parameters()
    found = []
    for objective in (ChiObjective(6), WeightObjective("none", "log_mean_exp", 6)):
        torch.manual_seed(4)
        output = objective(model, NONE, x)
        assert torch.allclose(output.loss, -log_mean_exp(output.log_weights, 0).mean())
        found.append((output.bound, *torch.autograd.grad(output.loss, parameters)))
        assert output.evaluations == 6 * 50
    assert all(torch.allclose(a, b) for a, b in zip(*found, strict=True))


def test_it_learns_a_wide_encoder() -> None:
    """The best normal for a two-mode target: CUBO covers both modes, the ELBO one."""

    class TwoModes(Line):
        def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
            def log_density(z: Tensor) -> Tensor:
                modes = torch.stack([Normal(-3.0, 0.6).log_prob(z), Normal(3.0, 0.6).log_prob(z)]).sum(-1)
                return modes.logsumexp(0) - math.log(2) + 0 * self.generative["target"]

            return log_density

    scales = []
    for objective in (ChiObjective(50), WeightObjective("none", "mean", 50)):
        model = TwoModes(1.5, 0.6)
        optimizer = torch.optim.Adam(model.inference_parameters(), lr=0.05)
        for _ in range(200):
            optimizer.zero_grad()
            objective(model, NONE, X.expand(20, 1)).loss.backward()
            optimizer.step()
        scales.append(model.inference["log_scale"].exp().item())
    assert scales[0] > 2.5
    assert scales[1] < 1.0


def test_one_sample_far_ahead_leaves_the_step_finite() -> None:
    """In single precision, whose largest number is e^88: a sample further ahead counts as one that is 20 nats ahead."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    model, order = Line(log_scale=4.0), 2.0
    output = ChiObjective(10, order)(model, NONE, X.float().expand(50, 1))
    first, second = (output.log_weights.topk(2, dim=0).values).unbind()
    assert (order * (first - second)).max() > 90
    gradient = torch.stack(torch.autograd.grad(output.loss, model.inference_parameters()))
    assert torch.isfinite(gradient.square()).all()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="num_samples=1"):
        ChiObjective(1)
    for order in (0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="order="):
            ChiObjective(5, order)
