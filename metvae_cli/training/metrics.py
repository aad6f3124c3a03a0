"""The numbers that are logged, and their running means."""

import functools
import re
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metvae_cli.models.base import TrainedModel
from metvae_cli.objectives.base import ObjectiveOutput


class Metrics(NamedTuple):
    """Named numbers. values: (N,), one for each name."""

    names: tuple[str, ...]
    values: Tensor

    def plus(self, name: str, value: Tensor) -> "Metrics":
        """One more, ()."""
        return Metrics((*self.names, name), torch.cat([self.values, value.detach().view(1).to(self.values)]))


@torch.no_grad()
def batch_metrics(output: ObjectiveOutput, model: TrainedModel, likelihood_weight: float = 1.0) -> Metrics:
    """Means over a batch; nats per datum where they are log-quantities.

    bound: the objective's bound on log p(x)
    the terms of the model, for an auto-encoder `reconstruction` and `kl`
    log_weight_variance: over the S chains of a datum (0 for one)
    effective_samples: (sum w)^2 / sum w^2, between 1 and S
    accept_k: acceptance probability of step k; moved_k, divergent_k: shares of moves made and of divergences
    """
    weights, info = output.log_weights, output.info
    terms = model.terms(output.initial, output.final, likelihood_weight)
    numbers = [output.bound.mean(), *terms.values()]
    if len(weights) > 1:
        numbers += [weights.var(0, unbiased=False).mean(), weights.softmax(0).square().sum(0).reciprocal().mean()]
    else:
        # What both are for one chain, whatever its weight. One that is not finite shows in the bound, and its step is
        # skipped: these two need not cost operations to say it again.
        numbers += [weights.new_zeros(()), weights.new_ones(())]
    values = torch.stack(numbers)
    num_steps = len(info.accepted)
    if num_steps:
        kinds = [info.accept_prob, info.accepted.to(info.accept_prob), info.divergent.to(info.accept_prob)]
        values = torch.cat([values, torch.stack(kinds, 1).mean((2, 3)).flatten().to(values)])  # step by step
    return Metrics(_names(tuple(terms), num_steps), values)


@functools.cache
def _names(terms: tuple[str, ...], num_steps: int) -> tuple[str, ...]:
    steps = [f"{kind}_{k + 1}" for k in range(num_steps) for kind in ("accept", "moved", "divergent")]
    return ("bound", *terms, "log_weight_variance", "effective_samples", *steps)


def weighted_loss(loss: Tensor, score_loss: Tensor | None, score_weight: float) -> Tensor:
    """The loss, with the gradient of its score-function term weighted."""
    if score_loss is None or score_weight == 1.0:
        return loss
    return loss - (1 - score_weight) * (score_loss - score_loss.detach())


def score_function_gradients(score_loss: Tensor | None, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """The part of the loss's gradient that passes through accept and reject decisions; the graph is kept."""
    if score_loss is None:
        return [None] * len(parameters)
    return list(torch.autograd.grad(score_loss, parameters, retain_graph=True, allow_unused=True))


def gradient_part_norms(
    parameters: Sequence[nn.Parameter], score_function: Sequence[Tensor | None], weight: float
) -> dict[str, float]:
    """Norms of the score-function part of the gradient and of the rest, the pathwise part (before clipping)."""
    scored = [weight * part if part is not None else None for part in score_function]
    pathwise = [
        parameter.grad if part is None or parameter.grad is None else parameter.grad - part
        for parameter, part in zip(parameters, scored, strict=True)
    ]
    return {"gradient_norm_score_function": _norm(scored), "gradient_norm_pathwise": _norm(pathwise)}


def _norm(tensors: Iterable[Tensor | None]) -> float:
    return sum(float(tensor.square().sum()) for tensor in tensors if tensor is not None) ** 0.5


def peak_memory_mb() -> float:
    """Peak memory of the process: on the CUDA device if one is in use, else resident in MB."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_resident_mb()


def peak_resident_mb(status: Path = Path("/proc/self/status")) -> float:
    """Largest resident size of this program in MB.

    status: where Linux tells it. What the system call says there begins with the largest size of the process that
        started this one.
    """
    if status.is_file() and (told := re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)):
        return int(told.group(1)) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class RunningMean:
    """Means of named numbers weighted by the number of data; its state is plain and goes into the checkpoint."""

    def __init__(self, totals: Mapping[str, float] | None = None, count: float = 0.0) -> None:
        self._names = tuple(totals or {})
        self._totals = torch.tensor(list((totals or {}).values()), dtype=torch.float64)
        self.count = count

    def add(self, metrics: Metrics, count: int) -> None:
        """Add means over `count` data. Stays on the device: nothing is read back here.

        Raises:
            ValueError: other names than before
        """
        names, values = metrics
        if not self._names:
            self._names, self._totals = names, torch.zeros_like(values, dtype=torch.float64)
        if self._names != names:
            raise ValueError(f"means of {', '.join(names)} are not those of {', '.join(self._names)}")
        self._totals = self._totals.to(values.device).add_(values.detach(), alpha=count)
        self.count += count

    def means(self) -> dict[str, float]:
        """The means so far; empty if nothing was added."""
        return {name: total / self.count for name, total in self._sums().items()} if self.count else {}

    def state(self) -> tuple[dict[str, float], float]:
        """Arguments that make an equal one."""
        return self._sums(), self.count

    def _sums(self) -> dict[str, float]:
        return dict(zip(self._names, self._totals.tolist(), strict=True))
