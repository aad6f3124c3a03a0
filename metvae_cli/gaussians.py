"""Gaussian log-densities with independent coordinates, and their scores."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from metvae_cli.scores import ScoredDensity

_LOG_TWO_PI = math.log(2 * math.pi)


class DiagonalGaussian(Distribution):
    """N(mean, diag(stddev^2)), batch shape (B,), event shape (D,)."""

    has_rsample = True
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}  # pyright: ignore[reportIncompatibleMethodOverride]
    support: ClassVar[constraints.Constraint] = constraints.real_vector  # pyright: ignore

    def __init__(self, mean: Tensor, stddev: Tensor) -> None:
        # No argument checks: they would force a device synchronisation for every batch; the trainer checks the loss.
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)
        self._mean, self._stddev = mean, stddev

    @property
    def mean(self) -> Tensor:
        """(B, D)."""
        return self._mean

    @property
    def stddev(self) -> Tensor:
        """(B, D)."""
        return self._stddev

    @property
    def mode(self) -> Tensor:
        """(B, D)."""
        return self._mean

    @property
    def variance(self) -> Tensor:
        """(B, D)."""
        return self._stddev.square()

    def entropy(self) -> Tensor:
        """(B,), in nats."""
        return self._stddev.log().sum(-1) + 0.5 * self._mean.shape[-1] * (1 + _LOG_TWO_PI)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(*sample_shape, B, D)."""
        noise = self._mean.new_empty(self._extended_shape(torch.Size(sample_shape))).normal_()
        return torch.addcmul(self._mean, self._stddev, noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., B, D) -> (..., B)."""
        return self.density()(value)

    def density(self) -> "DiagonalGaussianDensity":
        """log q(z), (S, B, D) -> (S, B). What does not depend on z is done once, here."""
        return DiagonalGaussianDensity(self._mean, self._stddev)


class DiagonalGaussianDensity(ScoredDensity):
    """log N(z; mean, diag(stddev^2)); both (B, D)."""

    def __init__(self, mean: Tensor, stddev: Tensor) -> None:
        self._mean, self._inverse = mean, stddev.reciprocal()
        self._constant = -(stddev.log().sum(-1) + 0.5 * mean.shape[-1] * _LOG_TWO_PI)

    def __call__(self, z: Tensor) -> Tensor:
        """(S, B, D) -> (S, B)."""
        return self._value((z - self._mean) * self._inverse)

    def with_score(self, z: Tensor, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """The value, (S, B), and (mean - z) / stddev^2, (S, B, D)."""
        error = (self._mean - z) * self._inverse
        return self._value(error), error * self._inverse

    def _value(self, error: Tensor) -> Tensor:
        return torch.add(self._constant, torch.linalg.vecdot(error, error), alpha=-0.5)


class StandardNormalDensity(ScoredDensity):
    """log N(z; 0, I)."""

    def __call__(self, z: Tensor) -> Tensor:
        """(..., D) -> (...)."""
        return standard_normal(z)

    def with_score(self, z: Tensor, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """The value, (...), and -z, (..., D)."""
        return standard_normal(z), -z


def standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), (..., D) -> (...)."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * _LOG_TWO_PI)
