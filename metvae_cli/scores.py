"""Log-densities and their scores: by a closed form where a density has one, else by automatic differentiation."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]  # z (S, B, D) -> (S, B), in nats


class ScoredDensity(ABC):
    """A log-density that gives its score too, cheaper than automatic differentiation would."""

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """z (S, B, D) -> (S, B)."""

    @abstractmethod
    def with_score(self, z: Tensor, *, differentiable: bool) -> tuple[Tensor, Tensor]:
        """The value (S, B) and its gradient in z (S, B, D): with gradient mode on, both can be differentiated once.

        differentiable: the score need not be if this is false
        """


def value_and_score(
    log_density: LogDensity, z: Tensor, *, create_graph: bool, differentiable: bool
) -> tuple[Tensor, Tensor]:
    """log_density at z (S, B, D), (S, B), and its gradient there, (S, B, D).

    Args:
        create_graph: the value is differentiable in z and in parameters; without it no graph survives the call
        differentiable: so is the score
    """
    if isinstance(log_density, ScoredDensity):
        with torch.set_grad_enabled(create_graph):
            value, score = log_density.with_score(z, differentiable=differentiable)
        return value, score if differentiable else score.detach()
    with torch.enable_grad():
        at = z if create_graph and z.requires_grad else z.detach().requires_grad_()
        value = log_density(at)
        if not value.requires_grad:  # it does not depend on z
            return value, torch.zeros_like(z)
        # Entries do not mix: the gradient of the sum is that of each.
        (score,) = torch.autograd.grad(
            value.sum(), at, retain_graph=create_graph, create_graph=differentiable, materialize_grads=True
        )
    return value if create_graph else value.detach(), score
