"""The Gaussian whose coordinates i and j have the correlation rho^|i - j|."""

import torch
from torch import Tensor

from metvae_cli.targets.base import LOG_TWO_PI, Target, Window, require_dim, require_positive


class Gaussian(Target):
    """log p(z) = -1/2 z^T C^-1 z + constant, C_ij = scale^2 correlation^|i - j|.

    Args:
        dim: D
        correlation: of neighbouring coordinates, in (-1, 1)
        scale: standard deviation of each coordinate

    Raises:
        ValueError: a number is out of range
    """

    def __init__(self, dim: int = 2, correlation: float = 0.9, scale: float = 1.0) -> None:
        require_dim(dim, 2)
        require_positive(scale=scale)
        if not -1 < correlation < 1:
            raise ValueError(f"correlation={correlation}: must lie between -1 and 1, both excluded")
        self.dim = dim
        index = torch.arange(dim)
        distance = (index[:, None] - index).abs().double()
        covariance = scale**2 * torch.tensor(correlation, dtype=torch.float64) ** distance
        self.factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(dim, dtype=torch.float64)
        self.whitening = torch.linalg.solve_triangular(self.factor, identity, upper=False).T.contiguous()
        self.log_normalizer = dim / 2 * LOG_TWO_PI + self.factor.diagonal().log().sum().item()
        reach = 3.5 * scale
        self.window = Window(-reach, reach, -reach, reach)

    def log_prob(self, z: Tensor) -> Tensor:
        """See the class."""
        return -0.5 * (z @ self.whitening.to(z)).square().sum(-1)

    def sample(self, count: int) -> Tensor:
        """Exact."""
        return torch.randn(count, self.dim) @ self.factor.float().T
