"""From data to latent positions and back, without gradients, a bounded number of them at a time.

Draws come from torch's global random stream.
"""

import torch
from torch import Tensor

from metvae_cli.evaluation.trained_chain import trained_positions
from metvae_cli.models.vae import VAE
from metvae_cli.samplers.chain import Sampler

_AT_A_TIME = 256


@torch.no_grad()
def encoder_means(model: VAE, x: Tensor) -> Tensor:
    """Means of q(z | x) for x (B, *event), (B, D); of a flow posterior where its Gaussian's mean goes."""
    return torch.cat([model.posterior(part).mean for part in x.split(_AT_A_TIME)])


@torch.no_grad()
def decoded_means(model: VAE, z: Tensor) -> Tensor:
    """Means of p(x | z) for z (S, B, D), (S, B, *event)."""
    at_a_time = max(1, _AT_A_TIME // z.shape[1])
    return torch.cat([model.decode(part).mean for part in z.split(at_a_time)])


def chain_positions(model: VAE, sampler: Sampler, x: Tensor) -> Tensor:
    """z_0, ..., z_K of one chain per datum of x (B, *event), (K + 1, B, D); see `trained_chain.py`."""
    return trained_positions(model, sampler, x, 1)[:, 0]
