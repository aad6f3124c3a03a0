"""Two levels of latent variables in one vector z = (z_1, z_2), of which the decoder sees the first.

    p(x, z) = p(x | z_1) p(z_1 | z_2) p(z_2)             q(z | x) = q(z_1 | x) q(z_2 | z_1)

A sampler moves both levels together.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from metvae_cli.gaussians import standard_normal
from metvae_cli.models.activations import Activation
from metvae_cli.models.held import as_built
from metvae_cli.models.nets import mlp
from metvae_cli.models.posteriors import mean_field_gaussian
from metvae_cli.models.precision import as_density
from metvae_cli.models.priors import Prior
from metvae_cli.scores import LogDensity


class HierarchicalPrior(Prior):
    """p(z_2) = N(0, I), p(z_1 | z_2) a mean-field Gaussian from a perceptron.

    Args:
        latent_dim: D, of both levels together
        upper_dim: of z_2; null is half of D
        hidden: widths of the perceptron
        activation: between its layers

    Raises:
        ValueError: a number is out of range
    """

    def __init__(
        self,
        latent_dim: int,
        upper_dim: int | None = None,
        hidden: Sequence[int] = (64,),
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        upper = latent_dim // 2 if upper_dim is None else upper_dim
        if not 1 <= upper < latent_dim:
            raise ValueError(
                f"upper_dim={upper}: must lie between 1 and latent_dim - 1 = {latent_dim - 1}; two levels need "
                "latent_dim=2 or more"
            )
        self.upper_dim, self.visible_dim = upper, latent_dim - upper
        self.net = mlp(upper, hidden, 2 * self.visible_dim, activation)

    def density(self) -> LogDensity:
        """log p(z), (S, B, D) -> (S, B)."""

        def log_density(z: Tensor) -> Tensor:
            lower, upper = z.split([self.visible_dim, self.upper_dim], -1)
            return mean_field_gaussian(self.net(upper)).log_prob(lower) + standard_normal(upper)

        return log_density

    @torch.no_grad()
    def sample(self, count: int, device: torch.device) -> Tensor:
        """(count, D)."""
        upper = torch.randn(count, self.upper_dim, device=device)
        return torch.cat([mean_field_gaussian(self.net(upper)).sample(), upper], -1)


class TwoLevels(Distribution):
    """q(z_1 | x) q(z_2 | z_1), batch shape (B,), event shape (D,).

    `mean` and `stddev` are those of z_1 and, given the mean of z_1, of z_2: they serve as coordinates and as what a
    proposal is told of x, for which they need not be exact. Built under `torch.no_grad`, it holds the parameters of
    `net` fixed.

    Args:
        lower: q(z_1 | x)
        net: z_1 -> mean and raw scale of z_2
    """

    has_rsample = True

    def __init__(self, lower: Distribution, net: nn.Module) -> None:
        self.lower, self.net = lower, as_built(net)
        self.lower_dim = lower.event_shape[0]
        self._at_mean = mean_field_gaussian(self.net(lower.mean))
        dim = self.lower_dim + self._at_mean.event_shape[0]
        super().__init__(lower.batch_shape, torch.Size([dim]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(B, D)."""
        return torch.cat([self.lower.mean, self._at_mean.mean], -1)

    @property
    def stddev(self) -> Tensor:
        """(B, D)."""
        return torch.cat([self.lower.stddev, self._at_mean.stddev], -1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(*sample_shape, B, D)."""
        lower = self.lower.rsample(torch.Size(sample_shape))
        return torch.cat([lower, mean_field_gaussian(self.net(lower)).rsample()], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., B, D) -> (..., B)."""
        lower, upper = value.tensor_split([self.lower_dim], -1)
        return self.lower.log_prob(lower) + mean_field_gaussian(self.net(lower)).log_prob(upper)


class HierarchicalEncoder(nn.Module):
    """q(z_1 | x) from a perceptron on the flattened datum, q(z_2 | z_1) from one on z_1; both mean-field Gaussians.

    Args:
        event_shape: shape of one datum
        latent_dim: D
        visible_dim: of z_1, the prior's
        hidden: widths of the first perceptron
        upper_hidden: widths of the second one
        activation: between the layers

    Raises:
        ValueError: the prior has one level only, or a width below 1
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        visible_dim: int,
        hidden: Sequence[int] = (128, 128),
        upper_hidden: Sequence[int] = (64,),
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        if visible_dim == latent_dim:
            raise ValueError("hidden: encoder=hierarchical is for two levels; set prior=hierarchical, or encoder=mlp")
        self.net = mlp(math.prod(event_shape), hidden, 2 * visible_dim, activation)
        self.upper = mlp(visible_dim, upper_hidden, 2 * (latent_dim - visible_dim), activation)

    def forward(self, x: Tensor) -> TwoLevels:
        """(B, *event) -> distribution with batch shape (B,) and event shape (D,)."""
        return TwoLevels(as_density(mean_field_gaussian, self.net(x.flatten(1))), self.upper)
