"""The linear-Gaussian model as evaluation takes it, and data of it."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from metvae_cli.evaluation.frozen import Evaluable, FrozenModel
from tests.objectives.linear_gaussian import SCALE, LinearGaussian


def frozen(model: LinearGaussian) -> FrozenModel:
    evaluable = cast(Evaluable, model)
    return FrozenModel(evaluable, evaluable, torch.device("cpu"), torch.float64)


def data(count: int) -> Tensor:
    """Draws of p(x), always the same."""
    model = LinearGaussian()
    covariance = model.weight @ model.weight.T + SCALE**2 * torch.eye(3)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return MultivariateNormal(model.offset, covariance).sample((count,))


def numbered(x: Tensor, size: int = 100) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches with their numbers."""
    return zip(torch.arange(len(x)).split(size), x.split(size), strict=True)
