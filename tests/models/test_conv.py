"""The convolutional network: its shapes and sizes, its skip connections, and derivatives of first and second order."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad, gradgradcheck
from torch.func import functional_call
from torch.nn.functional import conv2d, gelu

from metvae_cli.build import build_experiment
from metvae_cli.errors import ConfigError
from metvae_cli.models.conv import ConvDecoder, ConvEncoder, DoubleConv
from metvae_cli.models.likelihoods import BernoulliLikelihood
from metvae_cli.models.priors import StandardNormal
from metvae_cli.models.vae import VAE
from tests.runs import configuration

IMAGES = [(1, 28, 28), (1, 8, 8), (3, 32, 32), (3, 64, 64), (2, 9, 21)]
MNIST = (1, 28, 28)


def make_model(shape: Sequence[int]) -> VAE:
    return VAE(StandardNormal(2), ConvEncoder(shape, 2), ConvDecoder(2, shape), BernoulliLikelihood())


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_shapes(shape: Sequence[int]) -> None:
    posterior = ConvEncoder(shape, 5)(torch.zeros(4, *shape))
    assert (posterior.batch_shape, posterior.event_shape) == ((4,), (5,))
    decoder = ConvDecoder(5, shape)
    for leading in [(3, 4), (4,), (), (2, 1, 2), (0, 4)]:
        assert decoder(torch.zeros(*leading, 5)).shape == (*leading, *shape)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (MNIST, [(6, 6), (12, 12), (28, 28)]),
        ((3, 64, 64), [(16, 16), (32, 32), (64, 64)]),
        ((2, 15, 21), [(2, 4), (4, 8), (15, 21)]),
    ],
    ids=str,
)
def test_sizes_within_the_decoder(shape: Sequence[int], expected: list[tuple[int, int]]) -> None:
    decoder, sizes = ConvDecoder(2, shape), []
    for module in decoder.modules():
        if isinstance(module, DoubleConv):
            module.register_forward_hook(lambda _module, _inputs, output: sizes.append(tuple(output.shape[2:])))
    decoder(torch.zeros(1, 2))
    assert sizes == expected


def test_the_decoder_enlarges_by_copying_the_nearest_pixel() -> None:
    decoder, z = ConvDecoder(2, (1, 3, 5), (1, 1)), torch.randn(4, 2)
    linear = next(module for module in decoder.modules() if isinstance(module, nn.Linear))
    for parameter in decoder.parameters():
        nn.init.zeros_(parameter)  # so that of the double convolution only its skip remains
    list(decoder.parameters())[-2].data += 1  # the last, 1x1, convolution copies
    linear.weight.data += torch.eye(2)
    expected = z[:, [0, 0, 0, 1, 1]].view(4, 1, 1, 5).expand(4, 1, 3, 5)
    assert torch.equal(decoder(z), expected)


def test_parameter_counts_of_the_mnist_network() -> None:
    """By hand: a convolution has in * out * 9 weights and out biases. The coarsest image is 3 x 3 with 64 channels."""
    encoder = (1 * 16 * 9 + 16) + (16 * 16 * 9 + 16)
    encoder += (16 * 32 * 9 + 32) + (32 * 32 * 9 + 32)
    encoder += (32 * 64 * 9 + 64) + (64 * 64 * 9 + 64)
    encoder += (64 * 64 * 9 + 64) + (64 * 64 * 9 + 64)
    encoder += 576 * 2 * 7 + 2 * 7
    assert count(ConvEncoder(MNIST, 7)) == encoder
    decoder = 7 * 576 + 576
    decoder += (64 * 32 * 9 + 32) + (32 * 32 * 9 + 32)
    decoder += (32 * 16 * 9 + 16) + (16 * 16 * 9 + 16)
    decoder += (16 * 8 * 9 + 8) + (8 * 16 * 9 + 16)
    decoder += 16 * 1 + 1
    assert count(ConvDecoder(7, MNIST)) == decoder


@pytest.mark.parametrize("out_channels", [2, 3, 5])
def test_double_conv_is_what_it_says(out_channels: int) -> None:
    module, x = DoubleConv(3, out_channels, 4), torch.randn(2, 3, 5, 6)
    first, first_bias, second, second_bias = module.parameters()
    expected = gelu(conv2d(x, first, first_bias, padding=1))
    expected = gelu(conv2d(expected, second, second_bias, padding=1))
    if out_channels >= 3:
        expected[:, :3] += x
    assert torch.allclose(module(x), expected, atol=1e-6)


def test_without_weights_only_the_skip_remains() -> None:
    x = torch.randn(2, 3, 5, 6)
    for out_channels in (2, 3, 5):
        module = DoubleConv(3, out_channels, 4)
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
        expected = torch.zeros(2, out_channels, 5, 6)
        if out_channels >= 3:
            expected[:, :3] = x
        assert torch.equal(module(x), expected)


def test_gradients_reach_every_parameter() -> None:
    model, x = make_model(MNIST), torch.bernoulli(torch.full((3, *MNIST), 0.5))
    posterior = model.posterior(x)
    z = posterior.rsample((2,))
    (model.joint(x)(z) - posterior.log_prob(z)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


def test_rows_do_not_mix() -> None:
    shape = (1, 8, 8)
    encoder, decoder = ConvEncoder(shape, 2), ConvDecoder(2, shape)
    x, z = torch.randn(3, *shape), torch.randn(2, 3, 2)
    broken_x, broken_z = x.clone(), z.clone()
    broken_x[1], broken_z[1, 0] = torch.nan, torch.nan
    before, after = encoder(x).mean, encoder(broken_x).mean
    assert torch.allclose(after[[0, 2]], before[[0, 2]], atol=1e-5)
    assert after[1].isnan().all()
    before, after = decoder(z).flatten(0, 1), decoder(broken_z).flatten(0, 1)
    others = [0, 1, 2, 4, 5]
    assert torch.allclose(after[others], before[others], atol=1e-5)
    assert after[3].isnan().all()


def test_leading_dimensions_keep_their_order() -> None:
    decoder, z = ConvDecoder(2, (1, 8, 8)), torch.randn(2, 3, 2)
    together = decoder(z)
    for draw in range(2):
        for row in range(3):
            assert torch.allclose(together[draw, row], decoder(z[draw, row]), atol=1e-5)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "module_and_input",
    [
        (lambda: ConvDecoder(2, (1, 5, 4), (2, 2)), (1, 2, 2)),
        (lambda: DoubleConv(1, 2, 2), (1, 1, 3, 2)),
        (lambda: nn.Sequential(nn.Upsample((3, 5)), nn.GELU()), (1, 1, 1, 2)),
    ],
    ids=["decoder", "double_conv", "upsample"],
)
def test_second_derivatives_in_input_and_parameters(
    module_and_input: tuple[Callable[[], nn.Module], Sequence[int]],
) -> None:
    make, shape = module_and_input
    module = make()
    names = [name for name, _ in module.named_parameters()]

    def output(value: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, parameters, strict=True)), (value,))

    assert gradgradcheck(output, (torch.randn(shape, requires_grad=True), *module.parameters()))


@pytest.mark.usefixtures("double")
def test_the_score_is_differentiable_like_finite_differences() -> None:
    """A step along the score, differentiated in z and in the decoder's weights, as a chain does."""
    shape = (1, 9, 8)
    model, x = make_model(shape), torch.bernoulli(torch.full((2, *shape), 0.5))
    z, direction = torch.randn(1, 2, 2), torch.randn(1, 2, 2)
    weight = next(model.decoder.parameters())  # pyright: ignore[reportFunctionMemberAccess]

    def projected_score(point: Tensor) -> Tensor:
        point = point if point.requires_grad else point.detach().requires_grad_()
        score = grad(model.joint(x)(point).sum(), point, create_graph=True)[0]
        return (score * direction).sum()

    point = z.clone().requires_grad_()
    curvature, mixed = grad(projected_score(point), (point, weight))
    width, shift_z, shift_weight = 1e-5, torch.randn_like(z), torch.randn_like(weight)
    slope = (projected_score(z + width * shift_z) - projected_score(z - width * shift_z)) / (2 * width)
    assert torch.allclose((curvature * shift_z).sum(), slope, rtol=1e-5)
    values = []
    for sign in (1, -2):
        weight.data += sign * width * shift_weight
        values.append(projected_score(z))
    assert torch.allclose((mixed * shift_weight).sum(), (values[0] - values[1]) / (2 * width), rtol=1e-5)


def test_the_encoder_starts_near_the_prior() -> None:
    scale = ConvEncoder(MNIST, 2)(torch.zeros(1, *MNIST)).stddev
    assert ((scale > 0.5) & (scale < 2)).all()


def test_one_resolution_has_no_pooling() -> None:
    assert ConvEncoder((1, 1, 3), 2, (4,))(torch.zeros(5, 1, 1, 3)).batch_shape == (5,)
    assert ConvDecoder(2, (1, 1, 3), (4,))(torch.zeros(5, 2)).shape == (5, 1, 1, 3)


def test_mistakes_are_refused() -> None:
    for channels in ((), (4, 0)):
        with pytest.raises(ValueError, match=r"^channels=\["):
            ConvEncoder(MNIST, 2, channels)
        with pytest.raises(ValueError, match=r"^channels=\["):
            ConvDecoder(2, MNIST, channels)
    for shape in ((64,), (28, 28), (1, 7, 8), (1, 8, 7)):
        with pytest.raises(ValueError, match=r"^event_shape=\(.*use encoder=mlp$"):
            ConvEncoder(shape, 2)
        with pytest.raises(ValueError, match=r"^parameter_shape=\(.*use decoder=mlp$"):
            ConvDecoder(2, shape)


@pytest.mark.parametrize("choice", ["conv", "mlp400"])
def test_it_is_chosen_in_a_configuration(choice: str) -> None:
    words = ("dataset=digits", "trainer.device=cpu", f"encoder={choice}", f"decoder={choice}")
    learner = build_experiment(configuration(*words), []).learner
    output = learner.objective(learner.model, learner.sampler, learner.dataset.batch(torch.arange(4)))
    assert output.loss.isfinite()


def test_vectors_are_refused_with_a_remedy() -> None:
    words = ("dataset=gaussian_toy", "likelihood=gaussian", "trainer.device=cpu", "encoder=conv")
    with pytest.raises(ConfigError, match=r"^encoder\.event_shape=.*use encoder=mlp$"):
        build_experiment(configuration(*words), [])
