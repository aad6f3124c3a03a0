"""Scalar data that tell only the norm of z: the posterior is a sphere (arXiv 2106.15921), the likelihood is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from metvae_cli.data.base import Dataset, require_at_least
from metvae_cli.data.splits import drawn_splits

# Data are float32: below this the rounding of x is no longer negligible beside the noise.
MIN_NOISE = 1e-3
# What lies so far (nats) below the largest value of an integrand is left out of the integral.
_DEPTH = 45.0
_NODES = 128
_BISECTIONS = 60


@dataclass(frozen=True)
class RingProcess:
    """z ~ N(0, I_d), x = alpha (|z| + beta) + noise * e with e ~ N(0, 1), in float64 on the CPU.

    latent_dim: d
    """

    latent_dim: int
    alpha: float
    beta: float
    noise: float

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Draws of x, shape (count, 1), float32."""
        z = torch.randn(count, self.latent_dim, dtype=torch.float64, generator=generator)
        e = torch.randn(count, 1, dtype=torch.float64, generator=generator)
        return (self.alpha * (z.norm(dim=1, keepdim=True) + self.beta) + self.noise * e).float()

    def log_joint(self, r: Tensor, x: Tensor) -> Tensor:
        """log of the chi density of r = |z| (d degrees of freedom) and of N(x; alpha (r + beta), noise^2); r >= 0."""
        d = self.latent_dim
        log_chi = (
            torch.special.xlogy(torch.tensor(d - 1.0, dtype=torch.float64), r)
            - r.square() / 2
            - (d / 2 - 1) * math.log(2)
            - math.lgamma(d / 2)
        )
        error = (x - self.alpha * (r + self.beta)) / self.noise
        return log_chi - error.square() / 2 - math.log(self.noise) - 0.5 * math.log(2 * math.pi)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, (B, 1) -> (B,) float32, as an integral over r = |z|.

        The integrand is log-concave: it is integrated by Gauss-Legendre between the two points around its largest value
        where it has become negligible.
        """
        # On the CPU whatever the device of x: not every accelerator has float64.
        values = x.detach().cpu().double().reshape(-1)
        top, width = self._peak(values)
        depth = self.log_joint(top, values) - _DEPTH

        def counts(r: Tensor) -> Tensor:
            return self.log_joint(r, values) >= depth

        low = _edge(counts, inside=top, outside=torch.zeros_like(top))
        high = _edge(counts, inside=top, outside=top + math.sqrt(2 * _DEPTH) * width)
        positions, weights = np.polynomial.legendre.leggauss(_NODES)
        half = (high - low) / 2
        r = (low + half)[:, None] + half[:, None] * torch.from_numpy(positions)
        log_terms = self.log_joint(r, values[:, None]) + torch.from_numpy(weights).log()
        return (log_terms.logsumexp(1) + half.log()).float().to(x.device)

    def _peak(self, x: Tensor) -> tuple[Tensor, float]:
        """Where the integrand is largest, (B,), and a width beyond which it falls at least as fast as a Gaussian."""
        # The derivative (d - 1) / r - r + (c - r) / s^2 of the logarithm is zero at the root of a quadratic.
        s = self.noise / self.alpha
        precision, pull = 1 + 1 / s**2, (x / self.alpha - self.beta) / s**2
        root = (pull.square() + 4 * precision * (self.latent_dim - 1)).sqrt()
        # Of the two forms of the root the one that does not subtract numbers of one size.
        above = (pull + root) / (2 * precision)
        below = 2 * (self.latent_dim - 1) / (root - pull).clamp_min(torch.finfo(torch.float64).tiny)
        return torch.where(pull > 0, above, below), 1 / math.sqrt(precision)


def _edge(counts: Callable[[Tensor], Tensor], inside: Tensor, outside: Tensor) -> Tensor:
    """The point between `inside`, where the integrand counts, and `outside` beyond which it does not, by bisection."""
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        there = counts(middle)
        inside, outside = torch.where(there, middle, inside), torch.where(there, outside, middle)
    return outside


class Ring:
    """Event shape (1,), real values, no labels.

    batch_size: training data per iteration
    true_latent_dim: dimension d of z in the process that makes the data
    alpha, beta: x is alpha (|z| + beta) plus noise
    noise: standard deviation of the observation noise
    num_train, num_valid, num_test: sizes of the splits
    split_seed: seed of all data

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        true_latent_dim: int = 2,
        alpha: float = 2 * math.pi,
        beta: float = 2.0,
        noise: float = 1.0,
        num_train: int = 10000,
        num_valid: int = 1000,
        num_test: int = 1000,
        split_seed: int = 0,
    ) -> None:
        require_at_least(1, batch_size=batch_size, true_latent_dim=true_latent_dim)
        require_at_least(1, num_train=num_train, num_valid=num_valid, num_test=num_test)
        require_at_least(0, split_seed=split_seed)
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha={alpha}: must be positive and finite")
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta={beta}: must be finite and at least 0")
        if not MIN_NOISE <= noise < math.inf:
            raise ValueError(f"noise={noise}: must be finite and at least {MIN_NOISE}")
        self.batch_size = batch_size
        self.process = RingProcess(true_latent_dim, alpha, beta, noise)
        self.num_train = num_train
        self.num_valid = num_valid
        self.num_test = num_test
        self.split_seed = split_seed

    def load(self) -> Dataset:
        """Draw the splits."""
        generator = Generator().manual_seed(self.split_seed)
        splits = drawn_splits(self.process.sample, generator, self.num_train, self.num_valid, self.num_test)
        return Dataset("ring", *splits, support="real", exact_log_likelihood=self.process.log_prob)
