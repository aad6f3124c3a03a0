"""Nearest training data: whether a model draws something new or repeats what it has seen."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_NUMBERS_AT_A_TIME = 2**22  # 16 MiB of data


class Neighbours(NamedTuple):
    """The k nearest of each of N images, nearest first.

    indices: (N, k), places in the split
    distances: (N, k), Euclidean, over all values of a datum
    """

    indices: Tensor
    distances: Tensor


@torch.no_grad()
def nearest(
    images: Tensor, read: Callable[[Tensor], Tensor], among: Tensor, neighbours: int, chunk: int | None = None
) -> Neighbours:
    """Search in memory that does not grow with the data; of equally near data, the earlier ones in `among` count.

    Args:
        images: (N, *event)
        read: places (B,) -> data (B, *event): nothing else is asked of the data, which may be files
        among: (M,), the places to look at
        neighbours: k; all M if there are no more
        chunk: data read at a time; by default as many as 4 million numbers are
    """
    wanted = images.flatten(1)
    size = chunk or max(1, _NUMBERS_AT_A_TIME // wanted.shape[1])
    places = torch.empty(len(wanted), 0, dtype=torch.long, device=wanted.device)
    distances = torch.empty(len(wanted), 0, device=wanted.device)
    for part in among.split(size):
        data = read(part).flatten(1)
        # Differences and not a matrix product: a datum is at distance 0 of itself, and ties are ties.
        found = torch.cdist(wanted, data, compute_mode="donot_use_mm_for_euclid_dist")
        candidates = torch.cat([places, part.to(places).expand(len(wanted), -1)], 1)
        ordered, order = torch.cat([distances, found], 1).sort(dim=1, stable=True)
        distances, places = ordered[:, :neighbours], candidates.gather(1, order[:, :neighbours])
    return Neighbours(places, distances)
