"""Priors p(z)."""

import math

import torch
from torch import Tensor, nn


class StandardNormal(nn.Module):
    """p(z) = N(0, I)."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def log_prob(self, z: Tensor) -> Tensor:
        """(S, B, D) -> (S, B)."""
        return -0.5 * (z.square().sum(-1) + self.latent_dim * math.log(2 * math.pi))

    def sample(self, count: int, device: torch.device) -> Tensor:
        """(count, D)."""
        return torch.randn(count, self.latent_dim, device=device)
