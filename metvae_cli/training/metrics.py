"""The numbers that are logged, and their running means."""

import resource
import sys
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from metvae_cli.models.base import TrainedModel
from metvae_cli.objectives.base import ObjectiveOutput


@torch.no_grad()
def batch_metrics(output: ObjectiveOutput, model: TrainedModel, likelihood_weight: float = 1.0) -> dict[str, Tensor]:
    """Means over a batch, each (); nats per datum where they are log-quantities.

    bound: the objective's bound on log p(x)
    the terms of the model, for an auto-encoder `reconstruction` and `kl`
    log_weight_variance: over the S chains of a datum (0 for one)
    effective_samples: (sum w)^2 / sum w^2, between 1 and S
    accept_k: acceptance probability of step k; moved_k, divergent_k: shares of moves made and of divergences
    """
    weights = output.log_weights
    metrics = {
        "bound": output.bound.mean(),
        **model.terms(output.initial, output.final, likelihood_weight),
        "log_weight_variance": weights.var(0, unbiased=False).mean(),
        "effective_samples": (2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp().mean(),
    }
    accept, divergent = output.info.accept_prob.mean((1, 2)), output.info.divergent.float().mean((1, 2))
    moved = output.info.accepted.float().mean((1, 2))
    for k in range(len(accept)):
        metrics[f"accept_{k + 1}"] = accept[k]
        metrics[f"moved_{k + 1}"] = moved[k]
        metrics[f"divergent_{k + 1}"] = divergent[k]
    return metrics


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
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class RunningMean:
    """Means of named numbers weighted by the number of data; its state is plain and goes into the checkpoint."""

    def __init__(self, totals: Mapping[str, float] | None = None, count: float = 0.0) -> None:
        self._names = tuple(totals or {})
        self._totals = torch.tensor(list((totals or {}).values()), dtype=torch.float64)
        self.count = count

    def add(self, values: Mapping[str, Tensor], count: int) -> None:
        """Add means over `count` data. Stays on the device: nothing is read back here.

        Raises:
            ValueError: other names than before
        """
        terms = torch.stack([value.detach() for value in values.values()]).double() * count
        if not self._names:
            self._names, self._totals = tuple(values), torch.zeros_like(terms)
        if self._names != tuple(values):
            raise ValueError(f"means of {', '.join(values)} are not those of {', '.join(self._names)}")
        self._totals = self._totals.to(terms.device) + terms
        self.count += count

    def means(self) -> dict[str, float]:
        """The means so far; empty if nothing was added."""
        return {name: total / self.count for name, total in self._sums().items()} if self.count else {}

    def state(self) -> tuple[dict[str, float], float]:
        """Arguments that make an equal one."""
        return self._sums(), self.count

    def _sums(self) -> dict[str, float]:
        return dict(zip(self._names, self._totals.tolist(), strict=True))
