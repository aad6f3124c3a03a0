"""A ring in the plane: what a posterior looks like that knows only the norm of z."""

import math

import torch
from torch import Tensor

from metvae_cli.targets.base import LOG_TWO_PI, Target, Window, require_positive


class Ring(Target):
    """log p(z) = -(|z| - radius)^2 / (2 width^2) + constant.

    Args:
        radius: of the ring
        width: standard deviation across it

    Raises:
        ValueError: a number is out of range
    """

    dim = 2

    def __init__(self, radius: float = 2.0, width: float = 0.25) -> None:
        require_positive(radius=radius, width=width)
        self.radius, self.width = radius, width
        self.log_normalizer = LOG_TWO_PI + log_radial_integral(radius, width)
        reach = radius + 4.5 * width
        self.window = Window(-reach, reach, -reach, reach)

    def log_prob(self, z: Tensor) -> Tensor:
        """See the class."""
        return -0.5 * ((norm(z) - self.radius) / self.width).square()

    def sample(self, count: int) -> Tensor:
        """Exact."""
        return draw_ring(count, self.radius, self.width)


def norm(z: Tensor) -> Tensor:
    """|z|, (..., D) -> (...), with a finite gradient at the origin too."""
    return (z.square().sum(-1) + 1e-30).sqrt()


def log_radial_integral(radius: float, width: float) -> float:
    """log of the integral over r > 0 of r exp(-(r - radius)^2 / (2 width^2))."""
    ratio = radius / width
    below = math.sqrt(2 * math.pi) * 0.5 * math.erfc(-ratio / math.sqrt(2))
    return math.log(width**2 * math.exp(-0.5 * ratio**2) + radius * width * below)


def draw_ring(count: int, radius: float, width: float) -> Tensor:
    """Exact draws of the ring, (count, 2).

    Proposals r from an even mixture of the two densities whose sum bounds r exp(...): a normal one times the radius,
    and the part r - radius of it, whose absolute value is a Rayleigh variable.
    """
    found = torch.empty(0)
    while len(found) < count:
        found = torch.cat([found, _some_radii(2 * count + 100, radius, width)])
    angle = 2 * math.pi * torch.rand(count)
    return found[:count, None] * torch.stack([angle.cos(), angle.sin()], -1)


def _some_radii(count: int, radius: float, width: float) -> Tensor:
    # r = radius + width t; r exp(-t^2/2) <= (radius + width |t|) exp(-t^2/2): a normal t of the mass radius sqrt(2 pi),
    # or a Rayleigh |t| with a random sign, of the mass 2 width.
    normal_mass, rayleigh_mass = radius * math.sqrt(2 * math.pi), 2 * width
    normal = torch.rand(count) < normal_mass / (normal_mass + rayleigh_mass)
    rayleigh = torch.randn(2, count).square().sum(0).sqrt()
    sign = 2.0 * torch.randint(2, (count,)) - 1
    t = torch.where(normal, torch.randn(count), sign * rayleigh)
    r, bound = radius + width * t, radius + width * t.abs()
    return r[torch.rand(count) < r / bound]
