"""What every part of an evaluation is given and what it leaves."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metvae_cli.build import LoadedRun
from metvae_cli.commands.evaluate_request import Request
from metvae_cli.data.base import Split, spread_over
from metvae_cli.evaluation.frozen import FrozenModel
from metvae_cli.tracking.progress import progress


class Workplace(NamedTuple):
    """run: as trained. frozen: its model for evaluation. split, chosen: the data, and the numbers of those in use.

    check: raises if a signal came
    """

    run: LoadedRun
    request: Request
    frozen: FrozenModel
    split: Split
    chosen: Tensor
    check: Callable[[], None]

    def at_most(self, count: int | None) -> Tensor:
        """Numbers of at most so many of the data, evenly spread."""
        return self.chosen if count is None else self.chosen[spread_over(len(self.chosen), count)]

    def progress(self, name: str, total: float) -> AbstractContextManager[Callable[[float], None]]:
        """Shows how much of `total` is done."""
        return progress(name, total, self.check)

    def values(self, index: Tensor) -> Tensor:
        """Data on the device in the precision of the evaluation, (B, *event)."""
        at = index.to(self.split.values.device)
        return self.run.dataset.held_out(self.split, at).to(self.frozen.device, self.frozen.dtype)


class PerDatum(NamedTuple):
    """A column of numbers of data: their numbers in the split, (N,), and the values, (N,)."""

    numbers: Tensor
    values: Tensor


class Outcome(NamedTuple):
    """What a part leaves.

    results: plain values, for evaluation.json
    rows: of the table on the terminal: what and how much
    columns: of per_datum.csv; simulated: of per_datum_simulated.csv
    warnings: why a number cannot be trusted, and what to do
    images: (3, H, W) each
    """

    results: Mapping[str, Any]
    rows: list[tuple[str, str]]
    columns: Mapping[str, PerDatum] = {}
    simulated: Mapping[str, PerDatum] = {}
    warnings: list[str] = []  # noqa: RUF012 - never changed
    images: Mapping[str, Tensor] = {}


def with_error(value: float, *errors: float) -> str:
    """A number and its standard errors; a dash stands for one that cannot be had, of one datum or one repeat."""
    return f"{value:.3f}" + "".join(" ± -" if error != error else f" ± {error:.3f}" for error in errors)


def listed(values: Tensor) -> list[float]:
    """A tensor as plain numbers."""
    return torch.as_tensor(values).double().tolist()
