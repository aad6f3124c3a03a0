"""In-painting: what is masked, that the rest stays, and block Gibbs sampling against a Gaussian that is known."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from metvae_cli.evaluation.inpainting import MaskName, block_gibbs, forgotten, mask_of
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.encoders import MLPEncoder
from metvae_cli.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from metvae_cli.models.priors import StandardNormal
from metvae_cli.models.vae import VAE
from metvae_cli.samplers.assembly import make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from tests.kernels.cases import CASES

SHAPE = (1, 2, 2)
SCALE = 0.7
MASKED = torch.tensor([[False, True], [False, True]])
MASKS: tuple[MaskName, ...] = ("top", "bottom", "left", "right", "middle", "random")


class Decoder(nn.Module):
    """W z + b."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([[1.0, 0.4], [-0.5, 0.9], [0.3, -1.2], [0.8, 0.6]]))
        self.register_buffer("offset", torch.tensor([0.2, -0.1, 0.5, 1.0]))

    def forward(self, z: Tensor) -> Tensor:
        return (z @ cast(Tensor, self.weight).T + cast(Tensor, self.offset)).unflatten(-1, SHAPE)


class ExactEncoder(nn.Module):
    """p(z | x) itself; or, if it is `stale`, given the first data that it has seen instead of the present ones."""

    def __init__(self, decoder: Decoder, *, stale: bool = False) -> None:
        super().__init__()
        self.weight, self.offset = cast(Tensor, decoder.weight), cast(Tensor, decoder.offset)
        self.stale, self.seen = stale, cast("Tensor | None", None)

    def forward(self, x: Tensor) -> MultivariateNormal:
        if self.stale:
            x = self.seen = x if self.seen is None else self.seen
        covariance = torch.linalg.inv(torch.eye(2) + self.weight.T @ self.weight / SCALE**2)
        mean = (x.flatten(1) - self.offset) @ self.weight / SCALE**2 @ covariance
        return MultivariateNormal(mean, covariance)


def linear_gaussian(*, stale: bool = False) -> VAE:
    decoder = Decoder()
    return VAE(StandardNormal(2), ExactEncoder(decoder, stale=stale), decoder, GaussianLikelihood(SCALE))


def steps(count: int) -> Sampler:
    """Hamiltonian steps of one leapfrog each whose target is p(z | x): they leave it as it is."""
    kernels = [make_kernel(CASES[2].make(StepSize(0.3)), "metropolis") for _ in range(count)]
    return Sampler(kernels, make_schedule("constant", count))


def conditional(observed: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the masked values given the others."""
    decoder, hidden = Decoder(), MASKED.flatten()
    weight, offset = cast(Tensor, decoder.weight), cast(Tensor, decoder.offset)
    joint = weight @ weight.T + SCALE**2 * torch.eye(4)
    gain = joint[hidden][:, ~hidden] @ torch.linalg.inv(joint[~hidden][:, ~hidden])
    mean = offset[hidden] + gain @ (observed - offset[~hidden])
    return mean, joint[hidden][:, hidden] - gain @ joint[~hidden][:, hidden]


def deviations(draws: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Means and second moments of independent draws (N, 2), in standard errors from what they should be."""
    centred = draws - mean
    products = torch.einsum("ni,nj->nij", centred, centred).flatten(1)
    found = torch.cat([centred, products - covariance.flatten()], 1)
    return (found.mean(0) / (found.std(0) / math.sqrt(len(draws)))).abs()


def final_draws(model: VAE, sampler: Sampler, count: int = 20_000) -> tuple[Tensor, Tensor]:
    """Masked values after 25 sweeps of independent samplings of one datum, and what is observed of it."""
    torch.manual_seed(0)
    x = torch.tensor([1.5, -0.4, -1.0, 0.3]).view(1, *SHAPE).expand(count, -1, -1, -1)
    found = block_gibbs(model, sampler, forgotten(model, x, MASKED), MASKED, 25, 1)
    return found.draws[-1].flatten(1)[:, MASKED.flatten()], x[0].flatten()[~MASKED.flatten()]


@pytest.mark.parametrize("count", [0, 2])
def test_the_masked_part_becomes_a_draw_given_the_rest(count: int) -> None:
    draws, observed = final_draws(linear_gaussian(), steps(count))
    assert deviations(draws, *conditional(observed)).max() < 5


def test_positions_that_do_not_follow_the_picture_are_noticed() -> None:
    draws, observed = final_draws(linear_gaussian(stale=True), steps(0))
    assert deviations(draws, *conditional(observed)).max() > 10


@pytest.mark.parametrize("where", MASKS)
def test_what_is_observed_stays_bitwise_and_the_rest_changes(where: MaskName) -> None:
    shape = (1, 8, 8)
    model = VAE(StandardNormal(3), MLPEncoder(shape, 3), MLPDecoder(3, shape), BernoulliLikelihood())
    torch.manual_seed(0)
    x = torch.rand(5, *shape)
    masked = mask_of(8, 8, where, 0.5)
    start = forgotten(model, x, masked)
    found = block_gibbs(model, steps(2), start, masked, 12, 4)
    assert found.sweeps.tolist() == [3, 6, 9, 12]
    assert found.positions.shape == (4, 5, 3)
    assert found.draws.shape == found.means.shape == (4, 5, *shape)
    for images in (start[None], found.draws, found.means):
        assert torch.equal(images[..., ~masked], x[..., ~masked].expand(len(images), *[-1] * 3))
        assert (images[..., masked] != x[..., masked]).all()
    assert (found.draws[1:] != found.draws[:-1]).any(-1).any(-1).all()
    assert set(found.draws[..., masked].unique().tolist()) == {0.0, 1.0}
    means = model.decode(found.positions).mean
    assert torch.allclose(found.means[..., masked], means[..., masked])


def test_frames_are_no_more_than_sweeps_and_end_with_the_last() -> None:
    model, x = linear_gaussian(), torch.zeros(1, *SHAPE)
    for sweeps, frames, expected in ((3, 10, [1, 2, 3]), (10, 3, [3, 6, 10]), (7, 1, [7])):
        assert block_gibbs(model, steps(0), x, MASKED, sweeps, frames).sweeps.tolist() == expected


@pytest.mark.parametrize("where", MASKS)
@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (2, 2), (5, 9)])
def test_masks_are_of_their_share_and_neither_empty_nor_full(
    where: MaskName, share: float, size: tuple[int, int]
) -> None:
    masked = mask_of(*size, where, share)
    assert masked.shape == size
    assert 0 < masked.sum() < masked.numel()
    if 0.2 < share < 0.8 and min(size) >= 8:
        assert abs(masked.float().mean() - share) < 0.1


def test_masks_are_where_they_say() -> None:
    edge = {"top": (0, 0), "bottom": (-1, 0), "left": (0, 0), "right": (0, -1), "middle": (4, 4)}
    for where, place in edge.items():
        masked = mask_of(8, 8, cast(MaskName, where), 0.5)
        assert masked[place]
        assert not masked[{"top": (-1, 0), "left": (0, -1), "bottom": (0, 0), "right": (0, 0), "middle": (0, 0)}[where]]
    assert mask_of(8, 8, "top", 0.5)[:4].all()
    assert not mask_of(8, 8, "top", 0.5)[4:].any()
    assert mask_of(8, 8, "left", 0.25)[:, :2].all()
    with pytest.raises(ValueError, match="2 rows"):
        mask_of(1, 8, "top", 0.5)
