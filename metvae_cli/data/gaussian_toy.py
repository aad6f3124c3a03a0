"""A linear-Gaussian latent variable model whose exact log-likelihood is known, to compare bounds with."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from metvae_cli.data.base import Dataset, require_at_least
from metvae_cli.data.splits import drawn_splits

# Data are float32: below this the rounding of x is no longer negligible beside the noise.
MIN_NOISE = 1e-3


@dataclass(frozen=True)
class LinearGaussian:
    """z ~ N(0, I), x = weights z + offset + noise * e with e ~ N(0, I), in float64 on the CPU.

    weights: (observed_dim, latent_dim)
    offset: (observed_dim,)
    noise: standard deviation of the observation noise
    """

    weights: Tensor
    offset: Tensor
    noise: float

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Draws of x, shape (count, observed_dim), float32."""
        observed_dim, latent_dim = self.weights.shape
        z = torch.randn(count, latent_dim, dtype=torch.float64, generator=generator)
        e = torch.randn(count, observed_dim, dtype=torch.float64, generator=generator)
        return (z @ self.weights.T + self.offset + self.noise * e).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log N(x; offset, weights weights^T + noise^2 I), nats, (B, observed_dim) -> (B,) float32."""
        identity = torch.eye(len(self.offset), dtype=torch.float64)
        covariance = self.weights @ self.weights.T + self.noise**2 * identity
        # On the CPU whatever the device of x: not every accelerator has float64.
        exact = MultivariateNormal(self.offset, covariance).log_prob(x.detach().cpu().double())
        return exact.float().to(x.device)


class GaussianToy:
    """Event shape (observed_dim,), real values, no labels; weights and offset are standard normal draws.

    batch_size: training data per iteration
    observed_dim: dimension of a datum
    true_latent_dim: dimension of z in the process that makes the data
    noise: standard deviation of the observation noise
    num_train, num_valid, num_test: sizes of the splits
    split_seed: seed of the weights, the offset and all data

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        observed_dim: int = 5,
        true_latent_dim: int = 2,
        noise: float = 0.5,
        num_train: int = 2000,
        num_valid: int = 500,
        num_test: int = 500,
        split_seed: int = 0,
    ) -> None:
        require_at_least(1, batch_size=batch_size, observed_dim=observed_dim, true_latent_dim=true_latent_dim)
        require_at_least(1, num_train=num_train, num_valid=num_valid, num_test=num_test)
        require_at_least(0, split_seed=split_seed)
        if not MIN_NOISE <= noise < math.inf:
            raise ValueError(f"noise={noise}: must be finite and at least {MIN_NOISE}")
        self.batch_size = batch_size
        self.observed_dim = observed_dim
        self.true_latent_dim = true_latent_dim
        self.noise = noise
        self.num_train = num_train
        self.num_valid = num_valid
        self.num_test = num_test
        self.split_seed = split_seed

    def load(self) -> Dataset:
        """Draw the model, then the splits."""
        generator = Generator().manual_seed(self.split_seed)
        shape = (self.observed_dim, self.true_latent_dim)
        weights = torch.randn(shape, dtype=torch.float64, generator=generator)
        offset = torch.randn(self.observed_dim, dtype=torch.float64, generator=generator)
        model = LinearGaussian(weights, offset, self.noise)
        splits = drawn_splits(model.sample, generator, self.num_train, self.num_valid, self.num_test)
        return Dataset("gaussian_toy", *splits, support="real", exact_log_likelihood=model.log_prob)
