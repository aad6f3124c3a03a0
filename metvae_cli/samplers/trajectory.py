"""What a chain leaves: its ends and the records of its steps."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import Point
from metvae_cli.kernels.base import StepInfo, StepNoise


class Trajectory(NamedTuple):
    """initial: the point at z_0. final: the point at z_K. info: one record per step, each entry (K, S, B).

    noise: of the way back over each step, kept for the exact reverse distribution alone; else None
    log_final: log p(x, z) where each step began, (K, S, B), without a graph
    score_moments: mean and standard deviation, over chains and data, of the score where each step began, (K, 2, D), in
        the coordinates of the moves; None where no step size is adapted to it
    """

    initial: Point
    final: Point
    info: StepInfo
    noise: Sequence[StepNoise | None]
    log_final: Tensor
    score_moments: Tensor | None = None


class StepStart(NamedTuple):
    """What a trajectory keeps of the point where a step began: log p(x, z), (S, B), and the score's moments."""

    log_final: Tensor
    score_moments: Tensor | None


def make_trajectory(
    initial: Point, final: Point, records: Sequence[StepInfo], starts: Sequence[StepStart]
) -> Trajectory:
    """The trajectory with these ends, of the steps with these records and starts."""
    like = initial.log_final.detach()
    moments = [start.score_moments for start in starts if start.score_moments is not None]
    return Trajectory(
        initial=initial,
        final=final,
        info=_stack(records, like),
        noise=[record.noise for record in records],
        log_final=torch.stack([start.log_final for start in starts]) if starts else like.new_zeros((0, *like.shape)),
        score_moments=torch.stack(moments) if moments else None,
    )


def _stack(records: Sequence[StepInfo], like: Tensor) -> StepInfo:
    """Records of K steps as one, (K, S, B); zero steps give (0, S, B). The noise is left out."""
    if records:
        columns = zip(*(record[:-1] for record in records), strict=True)
        return StepInfo(*(torch.stack(entries) for entries in columns))  # pyright: ignore[reportArgumentType]
    none = like.new_zeros((0, *like.shape))
    return StepInfo(none, none, none, none, none.bool(), none, none, none.bool())
