"""Equal Gaussians far apart: what separates samplers that find modes from those that stay in one (MetFlow)."""

import math

import torch
from torch import Generator, Tensor

from metvae_cli.targets.base import LOG_TWO_PI, Modes, Target, Window, require_dim, require_positive


class Mixture(Target):
    """log p(z) = log of the mean over modes of exp(-|z - centre|^2 / (2 scale^2)) + constant.

    Args:
        centres: (M, D)
        scale: standard deviation of each mode
        window: see `Window`
    """

    def __init__(self, centres: Tensor, scale: float, window: Window) -> None:
        count, self.dim = centres.shape
        self.modes = Modes(centres, scale, torch.full((count,), 1 / count))
        self.window = window
        self.log_normalizer = self.dim * (LOG_TWO_PI / 2 + math.log(scale))
        self._centres, self._scale = centres, scale

    def log_prob(self, z: Tensor) -> Tensor:
        """See the class."""
        squared = (z[..., None, :] - self._centres.to(z)).square().sum(-1)
        return torch.logsumexp(-0.5 * squared / self._scale**2, -1) - math.log(len(self._centres))

    def sample(self, count: int) -> Tensor:
        """Exact."""
        chosen = torch.randint(len(self._centres), (count,))
        return self._centres.float()[chosen] + self._scale * torch.randn(count, self.dim)


class TwoModes(Mixture):
    """Two Gaussians at (-distance, 0) and (distance, 0).

    Args:
        distance: of each mode from the origin
        scale: standard deviation of each mode

    Raises:
        ValueError: a number is out of range
    """

    def __init__(self, distance: float = 5.0, scale: float = 1.0) -> None:
        require_positive(distance=distance, scale=scale)
        reach = distance + 4 * scale
        centres = torch.tensor([[-distance, 0.0], [distance, 0.0]], dtype=torch.float64)
        super().__init__(centres, scale, Window(-reach, reach, -reach, reach))


class EightModes(Mixture):
    """Eight Gaussians: in the plane on a circle, in more dimensions in eight different corners drawn at random.

    Args:
        dim: D, 2 to 100
        radius: of the circle (dim=2)
        corner: the corners are (+-corner, ..., +-corner) (dim=3 and more)
        scale: standard deviation of each mode
        corner_seed: of the choice of corners

    Raises:
        ValueError: a number is out of range
    """

    def __init__(
        self, dim: int = 2, radius: float = 10.0, corner: float = 4.0, scale: float = 1.0, corner_seed: int = 0
    ) -> None:
        require_dim(dim, 2, 100)
        require_positive(radius=radius, corner=corner, scale=scale)
        if not 0 <= corner_seed < 2**32:
            raise ValueError(f"corner_seed={corner_seed}: must lie between 0 and {2**32 - 1}")
        centres = _circle(radius) if dim == 2 else corner * _corners(dim, corner_seed)
        reach = (radius if dim == 2 else corner) + 4 * scale
        super().__init__(centres, scale, Window(-reach, reach, -reach, reach))


def _circle(radius: float) -> Tensor:
    """Eight points on a circle, the first at the top, (8, 2)."""
    angles = math.pi / 2 - torch.arange(8, dtype=torch.float64) * math.pi / 4
    return radius * torch.stack([angles.cos(), angles.sin()], -1)


def _corners(dim: int, seed: int) -> Tensor:
    """Eight different corners of the cube [-1, 1]^dim, (8, dim)."""
    generator = Generator().manual_seed(seed)
    found: list[list[int]] = []
    while len(found) < 8:
        corner = torch.randint(2, (dim,), generator=generator).tolist()
        if corner not in found:
            found.append(corner)
    return 2.0 * torch.tensor(found, dtype=torch.float64) - 1.0
