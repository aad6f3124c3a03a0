"""What encoders end in: draws and densities agree, densities integrate to one, gradients reach every parameter."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, LowRankMultivariateNormal, MultivariateNormal

from metvae_cli.models.conv import ConvEncoder
from metvae_cli.models.conv5x5 import Conv5x5Decoder, Conv5x5Encoder
from metvae_cli.models.encoders import MLPEncoder
from metvae_cli.models.hierarchical import HierarchicalEncoder
from metvae_cli.models.posteriors import FlowName, Head, HeadName, full_gaussian
from tests.kernels.cases import stir
from tests.thinned import thinned

pytestmark = pytest.mark.usefixtures("double")
EVENT, DIM = (1, 8, 8), 2
HEADS: tuple[HeadName, ...] = ("mean_field", "full", "low_rank")
FLOWS: tuple[FlowName, ...] = ("none", "realnvp", "maf", "iaf")
ENDS = list(itertools.product(HEADS, FLOWS))


class Wired(nn.Module):
    """A head on a network."""

    def __init__(self, head: HeadName, flow: FlowName, dim: int = DIM) -> None:
        super().__init__()
        self.head = Head(dim, head, 1, flow, 2, (8,))
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, self.head.size))
        stir(self, seed=3, scale=0.5)

    def forward(self, x: Tensor) -> Distribution:
        return self.head(self.net(x))


class TwoLevelEncoder(HierarchicalEncoder):
    """Of the same shape."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__((3,), dim, dim - 1, (8,), (8,))
        stir(self, seed=3, scale=0.5)


MAKERS: dict[str, Callable[[int], nn.Module]] = {
    **{f"{head}-{flow}": lambda dim, h=head, f=flow: Wired(h, f, dim) for head, flow in ENDS},
    "two_levels": TwoLevelEncoder,
}


@pytest.mark.parametrize("name", thinned(MAKERS, 2))
def test_the_density_integrates_to_one(name: str) -> None:
    posterior = MAKERS[name](DIM)(torch.randn(3, 3))
    axis = torch.linspace(-14, 14, 701)
    points = torch.cartesian_prod(axis, axis)[:, None].expand(-1, 3, -1)
    with torch.no_grad():
        total = posterior.log_prob(points).exp().sum(0) * (axis[1] - axis[0]) ** 2
    assert (total - 1).abs().max() < 5e-3


@pytest.mark.parametrize("name", MAKERS)
def test_draws_follow_the_density(name: str) -> None:
    """E_q[f / q] of a normal density f is 1 only if the draws are of q; of moved draws it is not."""
    posterior = MAKERS[name](DIM)(torch.randn(2, 3))
    with torch.no_grad():
        z = posterior.rsample((200_000,))
        assert z.shape == (200_000, 2, DIM)
        centre, spread = z.mean(0), 0.5 * z.std(0)
        inside = MultivariateNormal(centre, scale_tril=torch.diag_embed(spread))

        def score(points: Tensor) -> Tensor:
            ratio = (inside.log_prob(points) - posterior.log_prob(points)).exp()
            return (ratio.mean(0) - 1) / (ratio.std(0) / len(ratio) ** 0.5)

        assert score(z).abs().max() < 5
        assert score(centre + 1.1 * (z - centre)).abs().max() > 5


@pytest.mark.parametrize("name", MAKERS)
def test_shapes_gradients_and_scores(name: str) -> None:
    encoder = MAKERS[name](4)
    x = torch.randn(5, 3)
    posterior = encoder(x)
    assert (posterior.batch_shape, posterior.event_shape) == ((5,), (4,))
    assert posterior.mean.shape == posterior.stddev.shape == (5, 4)
    assert (posterior.stddev > 0).all()
    z = posterior.rsample((2,))
    assert posterior.log_prob(z).shape == (2, 5)
    (posterior.log_prob(z.detach() + 0.1) + z.sin().sum(-1)).sum().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad != 0).any(), key
    one = encoder(x[:1])
    at = torch.randn(1, 1, 4, requires_grad=True)
    assert torch.autograd.gradcheck(one.log_prob, (at,))
    assert torch.autograd.gradgradcheck(one.log_prob, (at,), atol=1e-4)


def test_covariances_are_what_they_say() -> None:
    output = torch.randn(3, 9)
    full = full_gaussian(output, 3)
    below = full.scale_tril.tril(-1)
    assert torch.equal(below[:, [1, 2, 2], [0, 0, 1]], output[:, 6:])
    assert (full.scale_tril.triu(1) == 0).all()
    assert torch.allclose(full.stddev, full.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt())
    low = Head(3, "low_rank", 2)(torch.randn(4, 12))
    assert isinstance(low, LowRankMultivariateNormal)
    assert low.cov_factor.shape == (4, 3, 2)


@pytest.mark.parametrize(("head", "flow"), ENDS)
@pytest.mark.parametrize("kind", [MLPEncoder, ConvEncoder, Conv5x5Encoder])
def test_every_network_takes_every_head(kind: type[MLPEncoder], head: HeadName, flow: FlowName) -> None:
    posterior = kind(EVENT, 3, head=head, flow=flow)(torch.rand(2, *EVENT))
    assert torch.isfinite(posterior.log_prob(posterior.rsample((4,)))).all()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (1, 8, 8), (1, 28, 20), (2, 5, 9)])
def test_the_5x5_decoder_has_the_sizes_of_the_data(shape: tuple[int, int, int]) -> None:
    assert Conv5x5Encoder(shape, 5)(torch.rand(2, *shape)).event_shape == (5,)
    assert Conv5x5Decoder(5, shape)(torch.randn(3, 2, 5)).shape == (3, 2, *shape)


def test_the_5x5_network_is_that_of_the_paper() -> None:
    """16, 32, 32 channels, 512 numbers after them, 450 hidden ones, for MNIST."""
    linear = [layer for layer in Conv5x5Encoder((1, 28, 28), 64).net if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(512, 450), (450, 128)]
    sizes = [layer.output_padding for layer in Conv5x5Decoder(64, (1, 28, 28)).net if hasattr(layer, "output_padding")]
    assert sizes == [(0, 0), (1, 1), (1, 1)]


def test_mistakes_are_refused() -> None:
    for words, match in (({"rank": 0}, "rank=0"), ({"flow_layers": 0}, "flow_layers=0")):
        with pytest.raises(ValueError, match=match):
            Head(2, **words)  # pyright: ignore[reportArgumentType]
    for shape, channels, hidden, match in (
        ((8,), (16,), 4, "event_shape="),
        ((1, 8, 8), (), 4, "channels="),
        ((1, 8, 8), (4,), 0, "hidden=0"),
    ):
        with pytest.raises(ValueError, match=match):
            Conv5x5Encoder(shape, 2, channels, hidden)
