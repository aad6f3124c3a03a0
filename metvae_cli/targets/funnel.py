"""A funnel: the scale of all other coordinates is the exponential of the first one."""

import math

import torch
from torch import Tensor

from metvae_cli.targets.base import LOG_TWO_PI, Target, Window, require_dim, require_positive


class Funnel(Target):
    """z_1 ~ N(0, spread^2), z_i | z_1 ~ N(0, exp(2 z_1)) for the others.

    Args:
        dim: D, at least 2
        spread: standard deviation of z_1

    Raises:
        ValueError: a number is out of range
    """

    def __init__(self, dim: int = 2, spread: float = 1.0) -> None:
        require_dim(dim, 2)
        require_positive(spread=spread)
        self.dim, self.spread = dim, spread
        self.log_normalizer = dim / 2 * LOG_TWO_PI + math.log(spread)
        width = 2 * math.exp(min(1.5 * spread, 4.0))
        self.window = Window(-3.5 * spread, 3.5 * spread, -width, width)

    def log_prob(self, z: Tensor) -> Tensor:
        """See the class; constants left out."""
        neck, rest = z[..., 0], z[..., 1:]
        within = 0.5 * (-2 * neck).exp() * rest.square().sum(-1)
        return -0.5 * (neck / self.spread).square() - within - (self.dim - 1) * neck

    def sample(self, count: int) -> Tensor:
        """Exact."""
        neck = self.spread * torch.randn(count, 1)
        return torch.cat([neck, neck.exp() * torch.randn(count, self.dim - 1)], -1)
