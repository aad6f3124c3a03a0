"""Activations by their names, with first and second derivatives.

All are twice differentiable, since kernels differentiate through scores.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["gelu", "silu", "softplus", "tanh"]
_MODULES: dict[Activation, type[nn.Module]] = {
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def activation(name: Activation) -> nn.Module:
    """The activation by its name."""
    return _MODULES[name]()


def name_of(module: nn.Module) -> Activation | None:
    """The name of an activation as `activation` makes it; None for anything else."""
    plain = {"gelu": "approximate='none'", "softplus": "beta=1.0, threshold=20.0"}
    for name, kind in _MODULES.items():
        if type(module) is kind and module.extra_repr() == plain.get(name, module.extra_repr()):
            return name
    return None


def value_and_slope(name: Activation, a: Tensor) -> tuple[Tensor, Tensor]:
    """The activation and its derivative at a, entry by entry."""
    if name == "gelu":
        below = torch.special.ndtr(a)
        return a * below, torch.addcmul(below, a, _normal_density(a))
    if name == "silu":
        gate = torch.sigmoid(a)
        value = a * gate
        return value, torch.addcmul(gate, value, 1 - gate)
    if name == "softplus":
        return nn.functional.softplus(a), torch.sigmoid(a)
    value = torch.tanh(a)
    return value, 1 - value.square()


def curvature(name: Activation, a: Tensor) -> Tensor:
    """The second derivative of the activation at a, entry by entry."""
    if name == "gelu":
        return _normal_density(a) * (2 - a.square())
    if name == "tanh":
        value = torch.tanh(a)
        return -2 * value * (1 - value.square())
    gate = torch.sigmoid(a)
    slope = gate * (1 - gate)
    return slope if name == "softplus" else slope * (2 + a * (1 - 2 * gate))


def _normal_density(a: Tensor) -> Tensor:
    return torch.exp(-0.5 * a.square()) * (1 / math.sqrt(2 * math.pi))
