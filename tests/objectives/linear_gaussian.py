"""A linear-Gaussian model whose likelihood and posterior are known: z ~ N(0, I_2), x | z ~ N(W z + b, s^2 I_3)."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from metvae_cli.models.priors import StandardNormal
from metvae_cli.scores import LogDensity

SCALE = 0.8


class LinearGaussian:
    """A model for objectives, with a Gaussian q(z | x): the exact posterior, moved and widened as asked.

    shift, widen: q = N(posterior mean + shift, widen^2 * posterior covariance)
    """

    def __init__(self, shift: float = 0.0, widen: float = 1.0) -> None:
        self.weight = torch.tensor([[1.0, 0.4], [-0.5, 0.9], [0.3, -1.2]])
        self.offset = torch.tensor([0.2, -0.1, 0.5])
        self.shift, self.widen = shift, widen
        self.prior = StandardNormal(2)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        precision = torch.eye(2) + self.weight.T @ self.weight / SCALE**2
        covariance = torch.linalg.inv(precision)
        mean = (x - self.offset) @ self.weight / SCALE**2 @ covariance
        return MultivariateNormal(mean + self.shift, self.widen**2 * covariance)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        likelihood_scale = SCALE * torch.eye(3)

        def log_density(z: Tensor) -> Tensor:
            prior = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z)
            location = z @ self.weight.T + self.offset
            return prior + likelihood_weight * MultivariateNormal(location, scale_tril=likelihood_scale).log_prob(x)

        return log_density

    def decode(self, z: Tensor) -> MultivariateNormal:
        """p(x | z)."""
        return MultivariateNormal(z @ self.weight.T + self.offset, scale_tril=SCALE * torch.eye(3))

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), (B,)."""
        covariance = self.weight @ self.weight.T + SCALE**2 * torch.eye(3)
        return MultivariateNormal(self.offset, covariance).log_prob(x)
