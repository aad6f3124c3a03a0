"""Activations by their names, with first and second derivatives.

All are twice differentiable, since kernels differentiate through scores.
"""

import math
from collections.abc import Callable
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
_FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "softplus": nn.functional.softplus,
    "tanh": torch.tanh,
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


def pulled_back(name: Activation, a: Tensor, gradient: Tensor) -> Tensor:
    """f'(a) times a gradient, entry by entry, as one operation: what a step backwards through the activation gives."""
    if name == "gelu":
        return torch.ops.aten.gelu_backward(gradient, a)
    if name == "silu":
        return torch.ops.aten.silu_backward(gradient, a)
    if name == "softplus":
        return torch.sigmoid(a) * gradient
    return torch.ops.aten.tanh_backward(gradient, torch.tanh(a))


def value_of(name: Activation, a: Tensor) -> Tensor:
    """f(a), entry by entry."""
    return _FUNCTIONS[name](a)


def curvature(name: Activation, a: Tensor) -> Tensor:
    """The second derivative of the activation at a, entry by entry."""
    if name == "gelu":
        return _normal_density(a) * (2 - a * a)
    if name == "tanh":
        value = torch.tanh(a)
        return -2 * value * (1 - value * value)
    gate = torch.sigmoid(a)
    slope = gate * (1 - gate)
    return slope if name == "softplus" else slope * (2 + a * (1 - 2 * gate))


def _normal_density(a: Tensor) -> Tensor:
    return torch.exp(-0.5 * (a * a)) * (1 / math.sqrt(2 * math.pi))
