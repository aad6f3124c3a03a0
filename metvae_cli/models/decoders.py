"""Decoders: from latent vectors to the parameters of p(x | z)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from metvae_cli.models.activations import Activation
from metvae_cli.models.nets import mlp


class MLPDecoder(nn.Module):
    """A perceptron from z to the likelihood's parameters.

    Args:
        latent_dim: D
        parameter_shape: shape of the parameters of one datum
        hidden: widths; [] makes the parameters linear in z
        activation: between the layers, twice differentiable

    Raises:
        ValueError: a width below 1
    """

    def __init__(
        self,
        latent_dim: int,
        parameter_shape: Sequence[int],
        hidden: Sequence[int] = (128, 128),
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.parameter_shape = tuple(parameter_shape)
        self.net = mlp(latent_dim, hidden, math.prod(self.parameter_shape), activation)

    def forward(self, z: Tensor) -> Tensor:
        """(..., D) -> (..., *parameter_shape)."""
        return self.net(z).unflatten(-1, self.parameter_shape)
