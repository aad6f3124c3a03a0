"""Encoders: from a batch x to the distribution q(z | x)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributions import Distribution

from metvae_cli.models.activations import Activation
from metvae_cli.models.nets import mlp
from metvae_cli.models.posteriors import FlowName, Head, HeadName


class MLPEncoder(nn.Module):
    """q(z | x) from a perceptron on the flattened datum.

    Args:
        event_shape: shape of one datum
        latent_dim: D
        hidden: widths; [] makes mean and scale linear in x
        activation: between the layers
        head, rank, flow, flow_layers, flow_hidden: what it ends in, see `posteriors.Head`

    Raises:
        ValueError: a number is out of range
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] = (128, 128),
        activation: Activation = "gelu",
        head: HeadName = "mean_field",
        rank: int = 2,
        flow: FlowName = "none",
        flow_layers: int = 2,
        flow_hidden: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        self.head = Head(latent_dim, head, rank, flow, flow_layers, flow_hidden)
        self.net = mlp(math.prod(event_shape), hidden, self.head.size, activation)

    def forward(self, x: Tensor) -> Distribution:
        """(B, *event) -> distribution with batch shape (B,) and event shape (D,)."""
        return self.head(self.net(x.flatten(1)))
