"""How far draws can be trusted: R-hat and effective sizes of chains, and the tail of importance weights, from ArviZ."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def r_hat(draws: Tensor) -> Tensor:
    """Rank-normalised split R-hat (Vehtari et al. 2021) of chains (S, N, ...), one per coordinate.

    NaN where no answer can be trusted: fewer than two chains or four draws, a coordinate that is not finite, or one of
    whose chains never moved.
    """
    return _of_sound(_array_stats().rhat, draws, least_chains=2, method="rank")


def effective_size(draws: Tensor) -> Tensor:
    """Effective number of draws for the mean and the bulk, of chains (S, N, ...), one per coordinate; NaN as `r_hat`.

    ArviZ gives a constant chain the size of independent draws; here a chain that never moved has none.
    """
    return _of_sound(_array_stats().ess, draws, least_chains=1, method="bulk")


def pareto_k(log_weights: Tensor) -> Tensor:
    """Shape k of the generalised Pareto tail of importance weights (S, B), (B,); NaN where S is too small to tell or a
    weight is infinite or no number.

    Below 0.5 the weights have a variance; above 0.7 the estimate cannot be trusted (Vehtari et al. 2024).
    """
    num_samples = len(log_weights)
    values = log_weights.detach().double().cpu()
    # A weight of zero is a weight like any other small one; the tail does not see it.
    least = torch.where(torch.isfinite(values), values, torch.inf).amin(0) - 1
    values = torch.where(values == -torch.inf, least, values)
    k = torch.full((values.shape[1],), torch.nan, dtype=torch.float64)
    varies = torch.isfinite(values).all(0) & ((values.max(0).values - values.min(0).values) > 1e-10)
    if num_samples >= 25 and varies.any():
        with np.errstate(all="ignore"):
            _, found = _array_stats().psislw(-values[:, varies].T.numpy(), axis=-1)  # it takes minus log-weights
        k[varies] = torch.from_numpy(np.atleast_1d(np.asarray(found, dtype=np.float64)))
    if num_samples >= 25:
        k[torch.isfinite(values).all(0) & ~varies] = -torch.inf  # all weights are the same: no tail at all
    return k


def _array_stats() -> Any:
    # Imported here: it brings half of SciPy, which takes longer than all else that comes before a first iteration.
    from arviz_stats.base.array import array_stats

    return array_stats


def _of_sound(statistic: Callable[..., Any], draws: Tensor, least_chains: int, method: str) -> Tensor:
    """The statistic of every coordinate for which it means something; (S, N, ...) -> (...)."""
    shape = draws.shape[2:]
    series = (
        draws.detach().double().cpu().flatten(2).numpy() if shape else draws.detach().double().cpu()[..., None].numpy()
    )
    moved = np.asarray(series != series[:, :1]).any(1).all(0)
    sound = np.isfinite(series).all((0, 1)) & moved
    result = np.full(series.shape[2], np.nan)
    if len(series) >= least_chains and series.shape[1] >= 4 and sound.any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of halves of chains that stand still
            result[sound] = statistic(series[:, :, sound], chain_axis=0, draw_axis=1, method=method)
    return torch.from_numpy(result).reshape(shape)
