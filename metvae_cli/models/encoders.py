"""Encoders: from a batch x to the distribution q(z | x)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus

from metvae_cli.models.nets import Activation, mlp

# softplus(raw + this) is 1 at raw = 0, so q(z | x) starts near the prior
_UNIT_SCALE = math.log(math.e - 1)
_SMALLEST_SCALE = 1e-6


def mean_field_gaussian(output: Tensor) -> Independent:
    """A network's output (B, 2 D), the means beside the raw scales -> distribution over (D,) with batch shape (B,)."""
    mean, raw = output.chunk(2, -1)
    scale = softplus(raw + _UNIT_SCALE) + _SMALLEST_SCALE
    # No argument checks: they would force a device synchronisation for every batch; the trainer checks the loss.
    return Independent(Normal(mean, scale, validate_args=False), 1, validate_args=False)


class MLPEncoder(nn.Module):
    """Mean-field Gaussian q(z | x) = N(mean(x), diag(scale(x)^2)) from a perceptron on the flattened datum.

    Args:
        event_shape: shape of one datum
        latent_dim: D
        hidden: widths; [] makes mean and scale linear in x
        activation: between the layers

    Raises:
        ValueError: a width below 1
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] = (128, 128),
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.net = mlp(math.prod(event_shape), hidden, 2 * latent_dim, activation)

    def forward(self, x: Tensor) -> Independent:
        """(B, *event) -> distribution with batch shape (B,) and event shape (D,)."""
        return mean_field_gaussian(self.net(x.flatten(1)))
