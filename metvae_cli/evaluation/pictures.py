"""Pictures of a model: draws of the prior, reconstructions, the chain from z_0 to z_K decoded, encoder means.

Every picture is one image (3, H, W) in [0, 1]; those that draw do so from torch's global random stream.
"""

import torch
from torch import Tensor

from metvae_cli.evaluation.coding import chain_positions, decoded_means, encoder_means
from metvae_cli.evaluation.grids import grid
from metvae_cli.evaluation.scatter import scatter
from metvae_cli.models.vae import VAE
from metvae_cli.samplers.chain import Sampler


@torch.no_grad()
def prior_samples(model: VAE, count: int, device: torch.device) -> Tensor:
    """Means of p(x | z) for draws z of the prior, in a square grid."""
    return square(decoded_means(model, model.prior.sample(count, device)[None])[0])


def reconstructions(model: VAE, sampler: Sampler, x: Tensor) -> Tensor:
    """Three rows: the data (B, C, H, W), their means decoded from z_0, and from z_K (left out without a chain)."""
    return below(x, decoded_means(model, ends(chain_positions(model, sampler, x))))


def chain(model: VAE, sampler: Sampler, x: Tensor) -> Tensor:
    """One row per datum of x (B, C, H, W): the datum, then z_0, z_1, ..., z_K decoded."""
    return beside(x[None], decoded_means(model, chain_positions(model, sampler, x)))


def latent_scatter(model: VAE, x: Tensor, labels: Tensor | None) -> Tensor:
    """Means of q(z | x) on their two principal axes, coloured by class where there are classes."""
    return scatter(principal_plane(encoder_means(model, x)), labels)


def ends(positions: Tensor) -> Tensor:
    """The first and the last of (K + 1, B, D), (2, B, D); the only one, if there is no chain."""
    return positions if len(positions) == 1 else positions[[0, -1]]


def square(images: Tensor) -> Tensor:
    """A grid of images (N, C, H, W), about as many down as across."""
    return grid(images, round(len(images) ** 0.5))


def below(x: Tensor, means: Tensor) -> Tensor:
    """A grid: a row of data (B, C, H, W), and one of each of means (R, B, C, H, W)."""
    return grid(torch.cat([x, means.flatten(0, 1)]), len(x))


def beside(*parts: Tensor) -> Tensor:
    """A grid with one row for each of B data: its images of parts (T_i, B, C, H, W), one part after another."""
    images = torch.cat(parts)
    return grid(images.transpose(0, 1).flatten(0, 1), len(images))


def principal_plane(means: Tensor) -> Tensor:
    """(N, D) on the two axes of largest variance, centred, (N, 2); of one dimension, on that and on zero."""
    centred = (means - means.mean(0)).cpu()
    if means.shape[1] > 2:
        centred = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
    return torch.nn.functional.pad(centred, (0, 2 - centred.shape[1]))
