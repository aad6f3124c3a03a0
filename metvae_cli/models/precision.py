"""Networks in half precision, everything that is a density in single precision.

Proposals, acceptance ratios and weights compare log-densities of hundreds of nats whose differences are of the order of
one: half precision has no digits left for them. Networks bear it: what they compute then is a slightly other, equally
deterministic function of x or z, and a chain is exact for it.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def in_precision(network: Callable[[Tensor], T], inputs: Tensor, dtype: torch.dtype | None) -> T:
    """What a network gives with its matrix products in `dtype`; None is that of its parameters."""
    if dtype is None:
        return network(inputs)
    with torch.autocast(inputs.device.type, dtype):
        return network(inputs)


def decoded(decoder: Callable[[Tensor], Tensor], z: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The likelihood's parameters, in the precision of z."""
    return in_precision(decoder, z, dtype).to(z.dtype)


def as_density(build: Callable[[Tensor], T], output: Tensor) -> T:
    """What `build` makes of a network's output, in single precision at least, wherever the network was run."""
    if not torch.is_autocast_enabled(output.device.type):
        return build(output)
    with torch.autocast(output.device.type, enabled=False):
        return build(output.float())
