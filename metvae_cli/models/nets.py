"""Multi-layer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from metvae_cli.models.activations import Activation, activation


def mlp(in_features: int, hidden: Sequence[int], out_features: int, activation_name: Activation) -> nn.Sequential:
    """Linear layers with the activation between them; an empty `hidden` is one linear map.

    Raises:
        ValueError: a width below 1
    """
    for width in hidden:
        if width < 1:
            raise ValueError(f"hidden={list(hidden)}: every width must be at least 1")
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise([in_features, *hidden, out_features]):
        layers += [nn.Linear(size_in, size_out), activation(activation_name)]
    return nn.Sequential(*layers[:-1])
