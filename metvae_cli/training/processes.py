"""Several processes that train one model on one global batch, as the training loop sees them.

Every process holds the whole model and computes a share of each batch. What a batch says (gradients, metrics, what
adaptations are told) is summed over processes once per iteration, so that each of them then takes the same step. Random
numbers are those of the whole batch (`whole_batch_draws.py`), the same in every process: parameters, adapted values and
random streams are equal in all of them between any two iterations, and a checkpoint does not know how many there were.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from metvae_cli.data.base import Dataset, Split
from metvae_cli.kernels.adaptation import Outcome
from metvae_cli.training.whole_batch_draws import WholeBatchDraws

T = TypeVar("T")


class Share(NamedTuple):
    """Rows `first` to `last` of a batch of `total` data. weight: of their mean in that of the batch."""

    first: int
    last: int
    total: int
    weight: float

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the batch."""
        return self.last - self.first == self.total

    def batch(self, dataset: Dataset, index: Tensor) -> Tensor:
        """Its training data x of the batch at `index`. Where they are drawn afresh, all are, and these are kept."""
        if self.is_whole or dataset.redraw or dataset.dequantize:
            return dataset.batch(index)[self.first : self.last]
        return dataset.batch(index[self.first : self.last])

    def held_out(self, dataset: Dataset, split: Split, index: Tensor) -> Tensor:
        """Its held-out data of those at `index`."""
        return dataset.held_out(split, index[self.first : self.last])

    def draws(self) -> AbstractContextManager[object]:
        """Inside, random numbers of a batch are those that the whole batch would have drawn."""
        return nullcontext() if self.is_whole else WholeBatchDraws(self.first, self.last, self.total)

    def placed(self, values: Tensor, dim: int) -> Tensor:
        """Zeros for the whole batch, with these values, whose dimension `dim` is the share, in their place.

        Summed over processes they are the values of the whole batch.
        """
        if self.is_whole:
            return values * self.weight
        shape = list(values.shape)
        shape[dim] = self.total
        whole = values.new_zeros(shape)
        whole.narrow(dim, self.first, self.last - self.first).copy_(values)
        return whole


class Processes(Protocol):
    """rank: number of this one, from 0. size: how many there are."""

    rank: int
    size: int

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum over processes of each tensor, in one exchange. They have the same shapes in all processes."""
        ...

    def tell(self, value: T) -> T:
        """What the first process holds."""
        ...

    def leave(self) -> None:
        """Nothing will be exchanged any more."""
        ...


class OneProcess:
    """Alone."""

    rank = 0
    size = 1

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors."""
        return list(tensors)

    def tell(self, value: T) -> T:
        """The value."""
        return value

    def leave(self) -> None:
        """Nobody is there to be left."""


def share_of(processes: Processes, total: int) -> Share:
    """The share of this process in a batch. A batch of fewer data than processes is computed whole by each of them."""
    rank, size = processes.rank, processes.size
    if total < size:
        return Share(0, total, total, 1 / size)
    first, last = rank * total // size, (rank + 1) * total // size
    return Share(first, last, total, (last - first) / total)


def share_out(outcome: Outcome, share: Share) -> list[Tensor]:
    """What an outcome of a share contributes to that of the batch: summed over processes, see `put_together`."""
    parts = [share.placed(outcome.metropolis_prob, 2), share.placed(outcome.z, 1)]
    if outcome.score_moments is not None:
        mean, spread = outcome.score_moments.unbind(1)
        parts.append(share.weight * torch.stack([mean, spread.square() + mean.square()], 1))
    if outcome.credit is not None:
        parts.append(share.weight * outcome.credit)
    return parts


def put_together(parts: Sequence[Tensor], like: Outcome) -> Outcome:
    """The outcome of a batch from what its shares contributed. like: that of one share, for what is there."""
    left = list(parts)
    metropolis_prob, z = left.pop(0), left.pop(0)
    moments = None
    if like.score_moments is not None:
        mean, square = left.pop(0).unbind(1)
        moments = torch.stack([mean, (square - mean.square()).clamp(min=0).sqrt()], 1)
    return Outcome(metropolis_prob, z, moments, left.pop(0) if like.credit is not None else None)
