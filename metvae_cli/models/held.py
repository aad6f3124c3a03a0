"""A module whose parameters are held fixed: gradients pass through what it is given, and none into it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call


class _Method(nn.Module):
    """Calls a method of a module, so that `functional_call` reaches all of them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, *given: Any) -> Any:
        return getattr(self.module, method)(*given)


def held(module: nn.Module, method: str = "forward") -> Callable[..., Any]:
    """A method of a module, with the parameters that it has when it is called as constants."""
    whole = _Method(module)

    def call(*given: Any) -> Any:
        fixed = {name: parameter.detach() for name, parameter in whole.named_parameters(remove_duplicate=False)}
        return functional_call(whole, fixed, (method, *given), tie_weights=False)

    return call


def as_built(module: nn.Module, method: str = "forward") -> Callable[..., Any]:
    """A method of a module for a distribution that keeps it: held where the distribution is built under
    `torch.no_grad`, as a Gaussian built there keeps constants for its mean and scale.
    """
    return getattr(module, method) if torch.is_grad_enabled() else held(module, method)
