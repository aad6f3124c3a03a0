"""Walks in latent space: straight lines between data, and along one coordinate at a time."""

from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.models.priors import StandardNormal
from metvae_cli.models.vae import Prior

REACH = 3.0  # of a traversal, in standard deviations of the prior
_MOST_UNITS = 10
_PRIOR_DRAWS = 1000


def different_pairs(labels: Tensor, first: Tensor) -> Tensor:
    """A partner of another class for each datum of `first`; another datum, where there is one class only.

    Args:
        labels: (N,), of all data
        first: (P,), places of data

    Returns:
        (P, 2), places; the second ones are drawn from torch's global random stream.

    Raises:
        ValueError: there is one datum only
    """
    if len(labels) < 2:
        raise ValueError("a pair needs at least 2 data")
    pairs = []
    for one in first.tolist():
        others = (labels != labels[one]).nonzero()[:, 0].cpu()
        if not len(others):
            others = torch.cat([torch.arange(one), torch.arange(one + 1, len(labels))])
        pairs.append([one, int(others[torch.randint(len(others), ())])])
    return torch.tensor(pairs)


def line(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """As many positions, evenly on the straight line from start to end, both (B, D), with both ends; (steps, B, D)."""
    share = torch.linspace(0, 1, steps, device=start.device).view(-1, 1, 1)
    return torch.lerp(start[None], end[None], share)


class Units(NamedTuple):
    """Latent coordinates from the most active one on.

    coordinates: (R,), their places in z
    activity: (R,), the variance over data of the mean of q(z | x) (Burda et al. 2016, section 5.2)
    """

    coordinates: Tensor
    activity: Tensor


def most_active(means: Tensor, visible_dim: int, most: int = _MOST_UNITS) -> Units:
    """Of encoder means (N, D), among the coordinates that the decoder sees: the first `visible_dim`."""
    activity = means[:, :visible_dim].var(0, unbiased=False)
    ordered, coordinates = activity.sort(dim=0, descending=True, stable=True)
    return Units(coordinates[:most], ordered[:most])


@torch.no_grad()
def prior_moments(prior: Prior, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each coordinate, both (D,): exact for N(0, I), else from 1000 draws."""
    if isinstance(prior, StandardNormal):
        return torch.zeros(dim, device=device), torch.ones(dim, device=device)
    draws = prior.sample(_PRIOR_DRAWS, device)
    return draws.mean(0), draws.std(0)


def along(centre: Tensor, coordinates: Tensor, mean: Tensor, scale: Tensor, steps: int) -> Tensor:
    """One coordinate at a time from mean - 3 scale to mean + 3 scale, the others held at `centre`.

    Args:
        centre, mean, scale: (D,)
        coordinates: (R,), their places in z
        steps: values of each

    Returns:
        (steps, R, D)
    """
    values = mean + torch.linspace(-REACH, REACH, steps, device=centre.device)[:, None] * scale
    moved = torch.nn.functional.one_hot(coordinates, len(centre)).bool()
    return torch.where(moved, values[:, None], centre)
