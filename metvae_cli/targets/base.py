"""What a target density has to say of itself.

A target is known up to a constant: exp(log_prob) integrates to exp(log_normalizer), in nats, where that is known.
Targets hold plain numbers and CPU tensors and follow the device and precision of the positions they are asked about.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)
_MOST_REDRAWS = 100


class Window(NamedTuple):
    """The part of the plane of the first two coordinates that holds nearly all of the mass, for pictures and starts."""

    left: float
    right: float
    bottom: float
    top: float


class Modes(NamedTuple):
    """Where the modes lie. centres: (M, D); scale: standard deviation around each; weights: (M,), of sum 1."""

    centres: Tensor
    scale: float
    weights: Tensor


class Target(ABC):
    """A density on R^D.

    dim: D
    window: see `Window`
    log_normalizer: log of the integral of exp(log_prob), in nats, or None where nobody knows it
    modes: where they are well apart, or None
    """

    dim: int
    window: Window
    log_normalizer: float | None = None
    modes: Modes | None = None

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density up to a constant, (..., D) -> (...), in nats, differentiable."""

    def sample(self, count: int) -> Tensor | None:
        """Independent exact draws, (count, D), from torch's global stream; None where there is no way to get them."""
        del count
        return None

    def spread_out(self, count: int, candidates: int = 10) -> Tensor:
        """Starts of chains, (count, D): each the likeliest of some places all over the window.

        Of those, drawn uniformly, some may have no mass at all, or lie where the density is so steep that no chain
        leaves them. Coordinates from the third on range over the wider of the window's sides.
        """
        places = self.anywhere(count * candidates).unflatten(0, (count, candidates))
        best, value = self._likeliest(places)
        for _ in range(_MOST_REDRAWS):  # from where there is no mass no chain could leave
            lost = value == -torch.inf
            if not lost.any():
                break
            places = self.anywhere(int(lost.sum()) * candidates).unflatten(0, (-1, candidates))
            best[lost], value[lost] = self._likeliest(places)
        return best

    @torch.no_grad()
    def _likeliest(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Of places (N, candidates, D) the likeliest of each row, (N, D), and its log-density, (N,)."""
        value, index = self.log_prob(places).nan_to_num(nan=-torch.inf, neginf=-torch.inf).max(1)
        return places[torch.arange(len(places)), index], value

    def anywhere(self, count: int) -> Tensor:
        """Uniform draws over the window, (count, D)."""
        left, right, bottom, top = self.window
        low, high = torch.full((self.dim,), min(left, bottom)), torch.full((self.dim,), max(right, top))
        low[:2], high[:2] = torch.tensor([left, bottom]), torch.tensor([right, top])
        return low + (high - low) * torch.rand(count, self.dim)


def require_positive(**numbers: float) -> None:
    """Raise ValueError naming the first number that is not positive and finite."""
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value}: must be positive and finite")


def require_dim(dim: int, least: int, most: int = 10_000) -> None:
    """Raise ValueError where a dimension is out of range."""
    if not least <= dim <= most:
        raise ValueError(f"dim={dim}: must lie between {least} and {most}")
