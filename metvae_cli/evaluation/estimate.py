"""An estimate of log-likelihoods: of every datum, several times, and what that says of their mean."""

import math
from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """log p(x) in nats, (R, N): R repeats with other random numbers, N data."""

    values: Tensor

    @property
    def per_datum(self) -> Tensor:
        """Mean over repeats, (N,)."""
        return self.values.mean(0)

    @property
    def mean(self) -> float:
        """Mean over data and repeats, nats per datum."""
        return self.values.mean().item()

    @property
    def standard_error(self) -> float:
        """Of the mean, over data: how far other data of the same kind would move it. NaN for one datum."""
        return standard_error(self.per_datum)

    @property
    def repeat_error(self) -> float:
        """Of the mean, over repeats: how far other random numbers would move it. NaN for one repeat."""
        return standard_error(self.values.mean(1))


def standard_error(values: Tensor) -> float:
    """Standard error of the mean of independent values (N,); NaN for one."""
    count = len(values)
    return values.std().item() / math.sqrt(count) if count > 1 else math.nan


def bits_per_dimension(log_likelihood: float, num_values: int, *, dequantized: bool) -> float:
    """Bits per value of a datum, -log p(x) / (n log 2), from nats.

    The density of a dequantized level, in [0, 1), is over intervals of 1/256: eight bits per value more. Of other real
    values it is a density per unit of the data, and may be negative.
    """
    return -log_likelihood / (num_values * math.log(2)) + (8.0 if dequantized else 0.0)
