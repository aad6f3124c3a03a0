"""Priors: densities integrate to one and are those of the draws; gradients reach every parameter."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Independent, Normal

from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.encoders import MLPEncoder
from metvae_cli.models.hierarchical import HierarchicalEncoder, HierarchicalPrior
from metvae_cli.models.likelihoods import BernoulliLikelihood
from metvae_cli.models.priors import FlowPrior, MixturePrior, Prior, StandardNormal, VampPrior
from metvae_cli.models.vae import VAE
from metvae_cli.objectives.weights import WeightObjective
from metvae_cli.samplers.assembly import make_schedule
from metvae_cli.samplers.chain import Sampler
from tests.kernels.cases import stir

pytestmark = pytest.mark.usefixtures("double")
EVENT, DIM = (1, 2, 3), 2
CPU = torch.device("cpu")
FALSE_ALARM = 1e-6


def vamp(dim: int, init: str = "data") -> VampPrior:
    encoder = MLPEncoder(EVENT, dim, (8,))
    stir(encoder, seed=1)
    return VampPrior(encoder, lambda count: torch.rand(count, *EVENT), True, dim, 4, init)  # pyright: ignore


def flow(transform: str) -> Callable[[int], Prior]:
    return lambda dim: FlowPrior(dim, transform, layers=2, hidden=(8,))  # pyright: ignore


MAKERS: dict[str, Callable[[int], Prior]] = {
    "standard_normal": StandardNormal,
    "mixture": lambda dim: MixturePrior(dim, 3),
    "vamp": vamp,
    "hierarchical": lambda dim: HierarchicalPrior(dim, hidden=(8,)),
    **{f"flow_{name}": flow(name) for name in ("realnvp", "spline", "maf", "iaf")},
}


def make(name: str, dim: int = DIM) -> Prior:
    prior = MAKERS[name](dim)
    stir(prior, seed=2, scale=0.5)
    return prior


def grid(low: float, high: float, size: int) -> tuple[Tensor, float]:
    """Points (1, size^2, 2) and the area of a cell."""
    axis = torch.linspace(low, high, size)
    return torch.cartesian_prod(axis, axis)[None], float((axis[1] - axis[0]) ** 2)


@pytest.mark.parametrize("name", MAKERS)
def test_the_density_integrates_to_one(name: str) -> None:
    points, area = grid(-12, 12, 601)
    with torch.no_grad():
        total = make(name).density()(points).exp().sum() * area
    assert abs(total - 1) < 2e-3


def p_value(prior: Prior, z: Tensor) -> float:
    """Chi-squared of draws against the density's mass in 12 x 12 cells between -3 and 3, and outside."""
    points, area = grid(-3 + 6 / 240 / 2, 3 - 6 / 240 / 2, 240)
    with torch.no_grad():
        mass = (prior.density()(points).exp() * area).view(12, 20, 12, 20).sum((1, 3)).flatten()
    cells = ((z + 3) / 0.5).floor().long()
    inside = ((cells >= 0) & (cells < 12)).all(-1)
    counts = torch.bincount(cells[inside, 0] * 12 + cells[inside, 1], minlength=144)
    expected = torch.cat([mass, (1 - mass.sum())[None]]) * len(z)
    found = torch.cat([counts, (~inside).sum()[None]])
    large = expected > 5
    statistic = ((found - expected)[large].square() / expected[large]).sum()
    return float(stats.chi2.sf(float(statistic), int(large.sum()) - 1))


@pytest.mark.parametrize("name", MAKERS)
def test_draws_follow_the_density_and_moved_ones_do_not(name: str) -> None:
    prior = make(name)
    z = prior.sample(100_000, CPU)
    assert z.shape == (100_000, DIM)
    assert p_value(prior, z) > FALSE_ALARM
    assert p_value(prior, 1.05 * z + 0.03) < FALSE_ALARM


@pytest.mark.parametrize("name", MAKERS)
def test_shapes_gradients_and_stored_weights(name: str) -> None:
    prior = make(name, 4)
    z = torch.randn(3, 5, 4)
    assert prior.log_prob(z).shape == (3, 5)
    assert prior.sample(7, CPU).shape == (7, 4)
    (prior.log_prob(z.requires_grad_())).sum().backward()
    for key, parameter in prior.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad != 0).any(), key
    other = MAKERS[name](4)
    if isinstance(other, VampPrior) and isinstance(prior, VampPrior):
        other._encoder = prior._encoder
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other.log_prob(z), prior.log_prob(z))


@pytest.mark.parametrize("name", MAKERS)
def test_scores_are_those_of_the_density(name: str) -> None:
    """Kernels differentiate the density twice."""
    prior = make(name)
    z = torch.randn(1, 3, DIM, requires_grad=True)
    assert torch.autograd.gradcheck(prior.density(), (z,))
    assert torch.autograd.gradgradcheck(prior.density(), (z,), atol=1e-4)


def test_a_vamp_prior_is_the_mean_of_encoded_pseudo_inputs() -> None:
    prior, z = vamp(DIM), torch.randn(2, 3, DIM)
    assert not any("encoder" in key for key in prior.state_dict())
    parts = [prior._encoder[0](u[None].clamp(0, 1)) for u in prior.pseudo_inputs]
    expected = torch.stack([part.log_prob(z) for part in parts]).logsumexp(0) - math.log(4)
    assert torch.allclose(prior.log_prob(z), expected)
    start = vamp(DIM, "mean").pseudo_inputs
    assert ((start - 0.5).abs() < 0.1).all()


@pytest.mark.parametrize("flow", ["realnvp", "maf", "iaf"])
def test_a_vamp_prior_of_flows_is_a_mean_too(flow: str) -> None:
    encoder = MLPEncoder(EVENT, DIM, (8,), flow=flow)  # pyright: ignore[reportArgumentType]
    stir(encoder, seed=1, scale=0.5)
    prior, z = VampPrior(encoder, lambda count: torch.rand(count, *EVENT), True, DIM, 4), torch.randn(2, 3, DIM)
    parts = [encoder(u[None]) for u in prior.pseudo_inputs]
    expected = torch.stack([part.log_prob(z) for part in parts]).logsumexp(0) - math.log(4)
    assert torch.allclose(prior.log_prob(z), expected)


def test_a_mixture_is_written_out() -> None:
    prior, z = make("mixture"), torch.randn(2, 3, DIM)
    assert isinstance(prior, MixturePrior)
    parts = Independent(Normal(prior.means, prior.log_scales.exp()), 1)
    expected = (parts.log_prob(z[..., None, :]) + prior.logits.log_softmax(0)).logsumexp(-1)
    assert torch.allclose(prior.log_prob(z), expected)


def test_a_mixture_of_narrow_components_far_out_keeps_its_digits_in_single_precision() -> None:
    torch.manual_seed(0)
    single = MixturePrior(64, 10, 3.0).float()
    with torch.no_grad():
        single.log_scales.fill_(-4)
        z = single.sample(200, CPU).float()
        assert (single.log_prob(z) - copy.deepcopy(single).double().log_prob(z.double())).abs().max() < 1e-3


def test_two_levels_without_a_chain_have_the_textbook_bound() -> None:
    """E[log p(x | z_1) + log p(z_1 | z_2) + log p(z_2) - log q(z_1 | x) - log q(z_2 | z_1)], written out."""
    prior = HierarchicalPrior(5, 2, (8,))
    encoder, decoder = HierarchicalEncoder(EVENT, 5, 3, (8,), (8,)), MLPDecoder(3, EVENT, (8,))
    model = VAE(prior, encoder, decoder, BernoulliLikelihood())
    x = torch.bernoulli(torch.full((4, *EVENT), 0.5))
    torch.manual_seed(1)
    output = WeightObjective("none", "mean", 2)(model, Sampler([], make_schedule("constant", 0)), x)
    torch.manual_seed(1)
    z = model.posterior(x).rsample((2,))
    first, second = z[..., :3], z[..., 3:]

    def normal(output: Tensor) -> Independent:
        mean, raw = output.chunk(2, -1)
        scale = torch.log1p(raw.exp() * (math.e - 1)) + 1e-6
        return Independent(Normal(mean, scale), 1)

    logits = decoder.net(first).view(2, 4, *EVENT)
    likelihood = (x * logits - torch.log1p(logits.exp())).flatten(2).sum(-1)
    top = Independent(Normal(torch.zeros(2), torch.ones(2)), 1).log_prob(second)
    below = normal(prior.net(second)).log_prob(first)
    inference = normal(encoder.net(x.flatten(1))).log_prob(first) + normal(encoder.upper(first)).log_prob(second)
    assert torch.allclose(output.bound, (likelihood + below + top - inference).mean(0))


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_components=0"):
        MixturePrior(2, 0)
    with pytest.raises(ValueError, match="spread="):
        MixturePrior(2, 3, -1.0)
    for upper in (0, 4):
        with pytest.raises(ValueError, match=f"upper_dim={upper}"):
            HierarchicalPrior(4, upper)
    with pytest.raises(ValueError, match="prior=hierarchical"):
        HierarchicalEncoder(EVENT, 4, 4)
