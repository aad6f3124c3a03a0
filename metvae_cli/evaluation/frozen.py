"""A trained model as evaluation uses it: a copy that nothing changes, in a precision of its own."""

import copy
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.distributions import Distribution

from metvae_cli.data.base import Dataset, Split
from metvae_cli.errors import ConfigError
from metvae_cli.models.vae import VAE, Prior
from metvae_cli.objectives.base import Model

Precision = Literal["double", "single"]


class Evaluable(Model, Protocol):
    """What evaluation needs of a model beside what an objective does: to draw from it."""

    prior: Prior

    def decode(self, z: Tensor) -> Distribution:
        """p(x | z) for z (S, B, D)."""
        ...


class FrozenModel(NamedTuple):
    """host: on the CPU, where everything random is drawn. placed: on the device, where latents are decoded.

    On a CPU they are one object.
    """

    host: Evaluable
    placed: Evaluable
    device: torch.device
    dtype: torch.dtype


def freeze(model: VAE, device: torch.device, precision: Precision = "double") -> FrozenModel:
    """A copy of a model.

    Double precision is what makes an estimate the same for every number of latents decoded together and on every
    device: single precision moves the sums over pixels by up to 1e-4 nats, and chains further.
    """
    if precision == "double" and device.type == "mps":
        raise ConfigError("precision=double: mps has none; set precision=single or device=cpu")
    dtype = torch.float64 if precision == "double" else torch.float32
    host = _copy(model, torch.device("cpu"), dtype)
    placed = host if device.type == "cpu" else _copy(model, device, dtype)
    return FrozenModel(cast(Evaluable, host), cast(Evaluable, placed), device, dtype)


def _copy(model: VAE, device: torch.device, dtype: torch.dtype) -> VAE:
    copied = copy.deepcopy(model).to(device=device, dtype=dtype).eval().requires_grad_(False)
    copied.network_dtype = None
    return copied


def batches(dataset: Dataset, split: Split, index: Tensor, size: int = 100) -> Iterator[tuple[Tensor, Tensor]]:
    """Data of a split as they are stored: their numbers (B,) and values (B, *event), `size` at a time."""
    for part in index.split(size):
        yield part, dataset.held_out(split, part.to(split.values.device)).cpu()
