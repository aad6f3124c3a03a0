"""Judges long chains: says whether they have converged, and only then whether they are where the target is.

R-hat and effective sizes are those of ArviZ. Where they say that a chain has converged, the mean and five quantiles of
every coordinate are compared with those of the target, within their Monte Carlo errors, at a family-wise false-alarm
rate of 1e-6. Coordinates are those of the position and, as normal scores, those of the target's Rosenblatt map.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from arviz_stats.base.array import array_stats
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from tests.targets import Target

Array = NDArray[np.float64]
FALSE_ALARM = 1e-6
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
REFERENCE_DRAWS = 200_000


def of_varying(statistic: Callable[..., Any], series: Array, method: str) -> Array:
    """A statistic of each column of a series (chains, draws, columns); NaN where a chain is constant or not finite.

    ArviZ gives a constant chain an effective size, that of independent draws.
    """
    sound = np.isfinite(series).all((0, 1)) & (series != series[:, :1]).any(1).all(0)
    result = np.full(series.shape[2], np.nan)
    if sound.any():
        result[sound] = statistic(series[:, :, sound], chain_axis=0, draw_axis=1, method=method)
    return result


def effective_size(series: Array) -> Array:
    """Independent draws that would give the mean as precisely."""
    return of_varying(array_stats.ess, series, method="mean")


def r_hat(series: Array) -> Array:
    """Rank-normalised split R-hat."""
    return of_varying(array_stats.rhat, series, method="rank")


class Verdict(NamedTuple):
    """Over all coordinates: largest R-hat, smallest effective size, and largest error in units of the bound on it."""

    r_hat: float
    effective: float
    error: float

    @property
    def converged(self) -> bool:
        """What the diagnostics say, not knowing the truth. NaN never passes."""
        return self.r_hat < 1.01 and self.effective > 400

    @property
    def passed(self) -> bool:
        return self.converged and self.error < 1


def coordinates(target: Target, z: Tensor) -> Array:
    """Position and normal scores, (..., 2 D)."""
    scores = torch.special.ndtri(target.uniforms(z).clamp(1e-12, 1 - 1e-12))
    return torch.cat([z, scores], -1).numpy()


def judge(draws: Tensor, target: Target, only: Sequence[int] | None = None) -> Verdict:
    """The verdict on draws (chains, draws, D) of a target, or on some of the coordinates only."""
    columns, reference = coordinates(target, draws), coordinates(target, target.sample(REFERENCE_DRAWS))
    if only is not None:
        columns, reference = columns[..., list(only)], reference[..., list(only)]
    limits = np.quantile(reference, LEVELS, axis=0)
    pairs = [(columns, reference), *(((columns < limit) * 1.0, (reference < limit) * 1.0) for limit in limits)]
    bound = stats.norm.isf(FALSE_ALARM / (2 * len(pairs) * columns.shape[-1]))
    sizes, errors = [], []
    for ours, truth in pairs:
        size = effective_size(ours)
        variance = ours.var((0, 1)) / size + truth.var(0) / REFERENCE_DRAWS
        sizes.append(size)
        errors.append(np.abs(ours.mean((0, 1)) - truth.mean(0)) / np.sqrt(variance) / bound)
    return Verdict(r_hat(columns).max().item(), np.min(sizes).item(), np.max(errors).item())
