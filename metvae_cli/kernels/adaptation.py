"""Adaptation of step sizes to a target acceptance, and of a diagonal scale to the spread of the chains.

What no gradient changes: step sizes, scales, and the baseline of the score function (`objectives/baseline.py`).

The trainer calls `update` with training batches only. Outside training everything is what the last update left: the
values are buffers of the kernels and of the adaptation, and so in every checkpoint.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metvae_cli.kernels.step_size import StepSize


class Outcome(NamedTuple):
    """What a training batch tells an adaptation.

    metropolis_prob: `StepInfo.metropolis_prob`, (K, S, B)
    z: last positions, (S, B, D)
    score_moments: `Trajectory.score_moments`, (K, 2, D), or None
    credit: mean of what the steps from each one on added to the log-weight, (K,), or None
    """

    metropolis_prob: Tensor
    z: Tensor
    score_moments: Tensor | None = None
    credit: Tensor | None = None


class Adaptation(nn.Module, ABC):
    """Changes values that no gradient changes."""

    @abstractmethod
    def update(self, outcome: Outcome) -> None:
        """One update from a training batch."""


class StepSizeAdaptation(Adaptation):
    """Robbins-Monro with constant gain, since the target of a model in training never stands still:

        log step_size_k <- log step_size_k + gain * (acceptance of step k in this batch - target).

    Args:
        step_sizes: one per step; a step size shared by several steps is moved by each of them
        target_accept: in (0, 1)
        gain: change of the log step size per unit of excess acceptance and iteration

    Raises:
        ValueError: a number is out of range
    """

    def __init__(self, step_sizes: Sequence[StepSize], target_accept: float, gain: float = 0.05) -> None:
        super().__init__()
        check_target(target_accept)
        if not gain > 0:
            raise ValueError(f"gain={gain}: must be positive")
        self._step_sizes = tuple(step_sizes)  # a tuple: they belong to the sampler's state, not to this one's
        self.target_accept = target_accept
        self.gain = gain

    @torch.no_grad()
    def update(self, outcome: Outcome) -> None:
        """Move each step size by its acceptance."""
        moves = self.gain * (outcome.metropolis_prob.mean((1, 2)) - self.target_accept)
        for step_size, move in zip(self._step_sizes, torch.where(torch.isfinite(moves), moves, 0.0), strict=True):
            step_size.log_value += move


class DualAveraging(Adaptation):
    """Nesterov's dual averaging (Hoffman and Gelman 2014, section 3.2), its gain falling with the iterations.

    Training uses the iterates; their average, `StepSize.log_settled`, is what they settle at and what is used outside.
    """

    errors: Tensor
    centre: Tensor
    count: Tensor

    def __init__(
        self,
        step_sizes: Sequence[StepSize],
        target_accept: float,
        gamma: float = 0.05,
        offset: float = 10.0,
        decay: float = 0.75,
    ) -> None:
        super().__init__()
        check_target(target_accept)
        self._groups = steps_by_size(step_sizes)
        self.target_accept, self.gamma, self.offset, self.decay = target_accept, gamma, offset, decay
        start = torch.stack([step_size.log_value.detach() for step_size, _ in self._groups])
        self.register_buffer("errors", torch.zeros_like(start))
        self.register_buffer("centre", start + math.log(10))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, outcome: Outcome) -> None:
        """Move each step size by the mean error, so far, of the acceptance of the steps that have it."""
        each = outcome.metropolis_prob.mean((1, 2))
        acceptance = torch.stack([each[steps].mean() for _, steps in self._groups])
        if not torch.isfinite(acceptance).all():
            return
        self.count += 1
        weight = 1 / (self.count + self.offset)
        self.errors.lerp_(self.target_accept - acceptance, weight)
        log_value = self.centre - self.count.sqrt() / self.gamma * self.errors
        for (step_size, _), value in zip(self._groups, log_value, strict=True):
            step_size.log_value.copy_(value)
            step_size.log_settled.lerp_(value, self.count**-self.decay)


def steps_by_size(step_sizes: Sequence[StepSize]) -> list[tuple[StepSize, list[int]]]:
    """Each step size once, with the steps that have it: they may share one."""
    groups: dict[int, tuple[StepSize, list[int]]] = {}
    for step, step_size in enumerate(step_sizes):
        groups.setdefault(id(step_size), (step_size, []))[1].append(step)
    return list(groups.values())


class VarianceSensitive(Adaptation):
    """Short steps where the score varies much over a batch (Thin et al. 2021, the code of arXiv 2106.15921):

        step_size <- 0.9 step_size + 0.1 gamma / (spread of the score + 1),

    per dimension if the step size has one value per dimension (else the spread is the root mean square over them).
    gamma, of each step, falls by a hundredth where the acceptance is below the target, and else rises by two. It
    starts at ten times the step size, as published.
    """

    gamma: Tensor

    def __init__(self, step_sizes: Sequence[StepSize], target_accept: float) -> None:
        super().__init__()
        check_target(target_accept)
        self._step_sizes = tuple(step_sizes)
        self.target_accept = target_accept
        start = torch.stack([step_size.log_value.detach().exp().mean() for step_size in step_sizes])
        self.register_buffer("gamma", 10 * start)

    @torch.no_grad()
    def update(self, outcome: Outcome) -> None:
        """Move gamma by the acceptance of each step, then each step size by its score's spread."""
        assert outcome.score_moments is not None
        acceptance = outcome.metropolis_prob.mean((1, 2))
        for k, (step_size, spread) in enumerate(zip(self._step_sizes, outcome.score_moments[:, 1], strict=True)):
            if not (torch.isfinite(spread).all() and torch.isfinite(acceptance[k])):
                continue
            self.gamma[k] *= 0.99 if acceptance[k] < self.target_accept else 1.02
            own = spread if step_size.log_value.dim() else spread.square().mean().sqrt()
            step_size.log_value.copy_((0.9 * step_size.log_value.exp() + 0.1 * self.gamma[k] / (own + 1)).log())


class ScaleAdaptation(Adaptation):
    """Running standard deviation, over the chains of a datum, of their last positions; needs two chains per datum.

    Args:
        scale: (D,), changed in place
        rate: weight of a batch in the running variance
    """

    def __init__(self, scale: Tensor, rate: float = 0.01) -> None:
        super().__init__()
        self._scale = (scale,)
        self.rate = rate

    @torch.no_grad()
    def update(self, outcome: Outcome) -> None:
        """Move the squared scale towards the variance in this batch."""
        (scale,) = self._scale
        variance = outcome.z.var(0).mean(0)
        if torch.isfinite(variance).all():
            scale.copy_(scale.square().lerp(variance, self.rate).sqrt())


def check_target(target_accept: float) -> None:
    """Raise ValueError unless it is a probability strictly inside (0, 1)."""
    if not 0 < target_accept < 1:
        raise ValueError(f"target_accept={target_accept}: must lie between 0 and 1, both excluded")
