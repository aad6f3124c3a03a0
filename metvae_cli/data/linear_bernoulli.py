"""Binary data from two latent coordinates, small enough that their exact log-likelihood is known."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from metvae_cli.data.base import Dataset, require_at_least
from metvae_cli.data.splits import drawn_splits

LATENT_DIM = 2
# Beyond, the posterior becomes so narrow that the quadrature is no longer exact.
MAX_OBSERVED_DIM = 20
_NODES = 96
_CHUNK = 256


@dataclass(frozen=True)
class LinearBernoulli:
    """z ~ N(0, I_2), x_i ~ Bernoulli(sigmoid(weights_i z + offset_i)), in float64 on the CPU.

    weights: (observed_dim, 2)
    offset: (observed_dim,)
    """

    weights: Tensor
    offset: Tensor

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Draws of x as grey levels 0 and 255, shape (count, observed_dim), uint8."""
        z = torch.randn(count, LATENT_DIM, dtype=torch.float64, generator=generator)
        u = torch.rand(count, len(self.offset), dtype=torch.float64, generator=generator)
        return (u < (z @ self.weights.T + self.offset).sigmoid()).to(torch.uint8).mul_(255)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, (B, observed_dim) of 0 and 1 -> (B,) float32, by two-dimensional Gauss-Hermite."""
        positions, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(_NODES))
        z = torch.cartesian_prod(positions, positions)
        log_weights = torch.cartesian_prod(weights, weights).log().sum(1) - math.log(2 * math.pi)
        logits = z @ self.weights.T + self.offset
        # log p(x | z) is x times the logits, plus what depends on z alone.
        alone = logsigmoid(-logits).sum(1) + log_weights
        # Of few different x there may be many: each is integrated once, some at a time to bound the memory.
        different, which = x.detach().cpu().double().unique(dim=0, return_inverse=True)
        exact = [(part @ logits.T + alone).logsumexp(1) for part in different.split(_CHUNK)]
        return torch.cat(exact)[which].float().to(x.device)


class LinearBernoulliToy:
    """Event shape (observed_dim,), binary values, no labels; weights and offset are standard normal draws.

    batch_size: training data per iteration
    observed_dim: dimension of a datum, at most 20
    num_train, num_valid, num_test: sizes of the splits
    split_seed: seed of the weights, the offset and all data

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        observed_dim: int = 10,
        num_train: int = 50000,
        num_valid: int = 5000,
        num_test: int = 5000,
        split_seed: int = 0,
    ) -> None:
        require_at_least(1, batch_size=batch_size, observed_dim=observed_dim)
        require_at_least(1, num_train=num_train, num_valid=num_valid, num_test=num_test)
        require_at_least(0, split_seed=split_seed)
        if observed_dim > MAX_OBSERVED_DIM:
            raise ValueError(f"observed_dim={observed_dim}: must be at most {MAX_OBSERVED_DIM}")
        self.batch_size = batch_size
        self.observed_dim = observed_dim
        self.num_train = num_train
        self.num_valid = num_valid
        self.num_test = num_test
        self.split_seed = split_seed

    def load(self) -> Dataset:
        """Draw the model, then the splits."""
        generator = Generator().manual_seed(self.split_seed)
        weights = torch.randn(self.observed_dim, LATENT_DIM, dtype=torch.float64, generator=generator)
        offset = torch.randn(self.observed_dim, dtype=torch.float64, generator=generator)
        model = LinearBernoulli(weights, offset)
        splits = drawn_splits(model.sample, generator, self.num_train, self.num_valid, self.num_test)
        return Dataset("linear_bernoulli", *splits, "binary", exact_log_likelihood=model.log_prob)
