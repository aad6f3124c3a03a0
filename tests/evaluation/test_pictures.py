"""Pictures: their size, what they show, and that they draw nothing from the trained model's own streams."""

import pytest
import torch

from metvae_cli.evaluation import pictures
from metvae_cli.evaluation.coding import chain_positions
from metvae_cli.evaluation.grids import captioned, grid, is_image, tinted
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.encoders import MLPEncoder
from metvae_cli.models.likelihoods import BernoulliLikelihood
from metvae_cli.models.priors import StandardNormal
from metvae_cli.models.vae import VAE
from metvae_cli.samplers.assembly import make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from tests.kernels.cases import CASES

SHAPE = (1, 8, 8)
CPU = torch.device("cpu")


@pytest.fixture
def model() -> VAE:
    return VAE(StandardNormal(3), MLPEncoder(SHAPE, 3), MLPDecoder(3, SHAPE), BernoulliLikelihood())


@pytest.fixture
def sampler() -> Sampler:
    kernels = [make_kernel(CASES[2].make(StepSize(0.3)), "barker") for _ in range(4)]
    return Sampler(kernels, make_schedule("constant", 4))


def cells(image: torch.Tensor, side: int = 48) -> tuple[int, int]:
    """Rows and columns of a grid of cells of 48 pixels with a border of 2."""
    return (image.shape[1] - 2) // (side + 2), (image.shape[2] - 2) // (side + 2)


def test_grids(model: VAE, sampler: Sampler) -> None:
    x = torch.bernoulli(torch.full((5, *SHAPE), 0.5))
    assert cells(pictures.prior_samples(model, 9, CPU)) == (3, 3)
    assert cells(pictures.reconstructions(model, sampler, x)) == (3, 5)
    assert cells(pictures.reconstructions(model, Sampler([], make_schedule("constant", 0)), x)) == (2, 5)
    assert cells(pictures.chain(model, sampler, x)) == (5, 6)  # the datum and z_0 ... z_4


def test_the_data_come_first(model: VAE, sampler: Sampler) -> None:
    x = torch.bernoulli(torch.full((5, *SHAPE), 0.5))
    image = pictures.chain(model, sampler, x)
    enlarged = x[2, 0].repeat_interleave(6, 0).repeat_interleave(6, 1)
    assert torch.equal(image[0, 102:150, 2:50], enlarged)


def test_the_chain_moves(model: VAE, sampler: Sampler) -> None:
    x = torch.bernoulli(torch.full((20, *SHAPE), 0.5))
    positions = chain_positions(model, sampler, x)
    assert positions.shape == (5, 20, 3)
    moved = (positions[1:] != positions[:-1]).any(-1)
    assert 0.2 < moved.float().mean() < 0.8  # Barker takes about half


@pytest.mark.parametrize("labels", [None, torch.arange(30) % 10])
@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_latent_scatter(labels: torch.Tensor | None, latent_dim: int) -> None:
    model = VAE(
        StandardNormal(latent_dim), MLPEncoder(SHAPE, latent_dim), MLPDecoder(latent_dim, SHAPE), BernoulliLikelihood()
    )
    image = pictures.latent_scatter(model, torch.rand(30, *SHAPE), labels)
    assert image.shape == (3, 500, 500)
    assert 0 <= image.min() < image.max() <= 1


def test_what_is_an_image() -> None:
    assert is_image((1, 8, 8))
    assert is_image((3, 32, 32))
    assert not is_image((5,))
    assert not is_image((2, 8, 8))


@pytest.mark.parametrize("width", [8, 28, 32, 64])
def test_images_are_at_least_as_wide_as_a_caption(width: int) -> None:
    image = grid(torch.rand(6, 1, 4, width), 3)
    assert (image.shape[2] - 2) // 3 - 2 >= 48
    assert ((image.shape[2] - 2) // 3 - 2) % width == 0


def test_captions_are_beside_the_grid_and_leave_its_pixels_alone() -> None:
    image = grid(torch.bernoulli(torch.full((6, *SHAPE), 0.5)), 3)
    height, width = image.shape[1:]
    shown = captioned(image, ["a", "b", "c"], ["first", "second"])
    assert torch.allclose(shown[:, -height:, -width:], image, atol=1 / 255)
    above, left = shown[:, :-height, -width:], shown[:, -height:, :-width]
    for margin, words in ((above, 3), (left.transpose(1, 2), 2)):
        dark = (margin < 0.5).all(0).any(0).tolist()
        places = [place for place, is_dark in enumerate(dark) if is_dark]
        cells = {int(place / len(dark) * words) for place in places}
        assert cells == set(range(words))
    assert captioned(image, ["a", "b", "c"]).shape[2] == width
    assert captioned(image, [], ["first", "second"]).shape[1] == height


def test_a_tint_is_where_the_mask_is() -> None:
    x, masked = torch.rand(5, *SHAPE), torch.zeros(8, 8, dtype=torch.bool)
    masked[2:4] = True
    shown = tinted(x, masked)
    assert torch.equal(shown[:, :, ~masked], x.expand(-1, 3, -1, -1)[:, :, ~masked])
    assert (shown[:, 0][:, masked] != shown[:, 2][:, masked]).all()
