"""The four energies of Rezende and Mohamed (2015), table 1, as densities exp(-energy) in the plane.

The last three do not fall off along the first coordinate and have no integral as published. Here they fall like a
Gaussian of standard deviation 0.4 outside of |z_1| <= 4, the part that is always shown.
"""

import math

import torch
from torch import Tensor

from metvae_cli.targets.base import LOG_TWO_PI, Target, Window
from metvae_cli.targets.ring import draw_ring, norm

_HALF_LENGTH, _FALL = 4.0, 0.4
_ROOT_TWO_PI = math.sqrt(2 * math.pi)


class TwoMoons(Target):
    """Energy 1: a ring of radius 2 and width 0.4, seen only near z_1 = -2 and z_1 = 2."""

    dim = 2
    window = Window(-4.0, 4.0, -4.0, 4.0)

    def __init__(self) -> None:
        # In polar coordinates both integrands are smooth and the angle is periodic: the sum is exact to rounding.
        radius = torch.linspace(0, 8, 1601, dtype=torch.float64)
        angle = torch.arange(800, dtype=torch.float64) * 2 * math.pi / 800
        z = radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], -1)
        values = self.log_prob(z).exp().mean(1) * 2 * math.pi * radius
        self.log_normalizer = math.log(torch.trapezoid(values, radius).item())

    def log_prob(self, z: Tensor) -> Tensor:
        """See the class."""
        return -0.5 * ((norm(z) - 2) / 0.4).square() + _log_sides(z)

    def sample(self, count: int) -> Tensor:
        """Exact: draws of the ring, kept with the probability that the sides give them."""
        found = torch.empty(0, 2)
        while len(found) < count:
            drawn = draw_ring(4 * count + 100, 2.0, 0.4)
            kept = torch.rand(len(drawn)) < 0.99 * _log_sides(drawn).exp()  # the two sides add up to at most 1.0000001
            found = torch.cat([found, drawn[kept]])
        return found[:count]


class Wave(Target):
    """Energies 2 to 4: one strip or two along a sine wave.

    Args:
        energy: 2 (one strip), 3 (two that part and meet again) or 4 (two that part)

    Raises:
        ValueError: there is no such energy
    """

    dim = 2

    def __init__(self, energy: int = 2) -> None:
        if energy not in (2, 3, 4):
            raise ValueError(f"energy={energy}: must be 2, 3 or 4; target=rezende1 is the first one")
        self.energy = energy
        self.widths = {2: (0.4,), 3: (0.35, 0.35), 4: (0.4, 0.35)}[energy]
        length = 2 * _HALF_LENGTH + _FALL * _ROOT_TWO_PI
        self.log_normalizer = LOG_TWO_PI / 2 + math.log(sum(self.widths)) + math.log(length)
        self.window = Window(-5.5, 5.5, -3.0 if energy == 2 else -5.5, 3.0)

    def log_prob(self, z: Tensor) -> Tensor:
        """See the class."""
        strips = zip(self._centres(z[..., 0]), self.widths, strict=True)
        across = [-0.5 * ((z[..., 1] - centre) / width).square() for centre, width in strips]
        beyond = (z[..., 0].abs() - _HALF_LENGTH).clamp(min=0)
        return torch.logsumexp(torch.stack(across), 0) - 0.5 * (beyond / _FALL).square()

    def sample(self, count: int) -> Tensor:
        """Exact: along the strip, then which strip, then across."""
        length = 2 * _HALF_LENGTH
        inside = torch.rand(count) < length / (length + _FALL * _ROOT_TWO_PI)
        tail = _FALL * torch.randn(count)
        first = torch.where(inside, length * (torch.rand(count) - 0.5), tail + _HALF_LENGTH * tail.sign())
        widths = torch.tensor(self.widths)
        strip = torch.multinomial(widths, count, replacement=True)
        centres = torch.stack(self._centres(first))[strip, torch.arange(count)]
        return torch.stack([first, centres + widths[strip] * torch.randn(count)], -1)

    def _centres(self, first: Tensor) -> list[Tensor]:
        """Where the middle of each strip lies at z_1."""
        wave = torch.sin(math.pi / 2 * first)
        if self.energy == 2:
            return [wave]
        if self.energy == 3:
            return [wave, wave - 3 * (-0.5 * ((first - 1) / 0.6).square()).exp()]
        return [wave, wave - 3 * torch.sigmoid((first - 1) / 0.3)]


def _log_sides(z: Tensor) -> Tensor:
    sides = [-0.5 * ((z[..., 0] + side) / 0.6).square() for side in (-2.0, 2.0)]
    return torch.logaddexp(*sides)
