"""A bent Gaussian."""

import math

import torch
from torch import Tensor

from metvae_cli.targets.base import LOG_TWO_PI, Target, Window, require_positive


class Banana(Target):
    """z = (a e_1, e_2 / a + b (e_1^2 + a^2)), e a Gaussian of unit variances and a correlation (MetFlow).

    The map has the Jacobian 1, so that log p(z) = -1/2 e^T C^-1 e + constant.

    Args:
        correlation: of e_1 and e_2, in (-1, 1)
        stretch: a
        bend: b

    Raises:
        ValueError: a number is out of range
    """

    dim = 2

    def __init__(self, correlation: float = 0.9, stretch: float = 1.15, bend: float = 0.5) -> None:
        require_positive(stretch=stretch)
        if not -1 < correlation < 1:
            raise ValueError(f"correlation={correlation}: must lie between -1 and 1, both excluded")
        if not math.isfinite(bend):
            raise ValueError(f"bend={bend}: must be finite")
        self.correlation, self.stretch, self.bend = correlation, stretch, bend
        self.log_normalizer = LOG_TWO_PI + 0.5 * math.log(1 - correlation**2)
        reach, end = 3.5 * stretch, bend * (3.2**2 + stretch**2)
        self.window = Window(-reach, reach, min(end, 0.0) - 3 / stretch, max(end, 0.0) + 3 / stretch)

    def log_prob(self, z: Tensor) -> Tensor:
        """See the class."""
        first = z[..., 0] / self.stretch
        second = self.stretch * (z[..., 1] - self.bend * (first.square() + self.stretch**2))
        given = second - self.correlation * first
        return -0.5 * (first.square() + given.square() / (1 - self.correlation**2))

    def sample(self, count: int) -> Tensor:
        """Exact."""
        first, noise = torch.randn(2, count)
        second = self.correlation * first + math.sqrt(1 - self.correlation**2) * noise
        bent = second / self.stretch + self.bend * (first.square() + self.stretch**2)
        return torch.stack([self.stretch * first, bent], -1)
