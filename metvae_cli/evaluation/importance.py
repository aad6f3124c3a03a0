"""Log-likelihood by importance sampling (Burda et al. 2016, section 2).

    log p(x) >= E[ log (1/S) sum_s p(x, z_s) / q(z_s | x) ],        z_s ~ q(z | x)

A chain may stand in the place of the encoder; its paths then have weights with the same expectation, or a lower one
(`path_weights.py`). The estimate per datum is biased low by about Var(w) / (2 S p(x)^2): it bounds log p(x) from below
in expectation for every S and approaches it as S grows, quickly only if the weights have a variance. The Pareto shape
of their largest ones tells whether they do.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.evaluation.convergence import pareto_k
from metvae_cli.evaluation.estimate import Estimate, standard_error
from metvae_cli.evaluation.frozen import FrozenModel
from metvae_cli.evaluation.streams import Name, stream
from metvae_cli.objectives.base import Posterior

Proposal = Callable[[Tensor], Posterior]

# Log-weights (S, B) of S draws for data (B, *event), each datum with the random stream of its name.
Weigh = Callable[[Tensor, Sequence[Name], int], Tensor]

# Draws of a datum at a time. Fixed: the stream of a datum must not depend on how many are decoded together.
_BLOCK = 1000


class ImportanceEstimate(NamedTuple):
    """Of N data.

    per_datum: (N,) estimates of log p(x) in nats
    effective_samples: (N,), (sum w)^2 / sum w^2, between 1 and S
    pareto_k: (N,) shape of the tail of the weights; above 0.7 the estimate of that datum cannot be trusted
    """

    per_datum: Tensor
    effective_samples: Tensor
    pareto_k: Tensor

    @property
    def mean(self) -> float:
        """Mean over data, nats per datum."""
        return self.per_datum.mean().item()

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over data; NaN for one datum."""
        return standard_error(self.per_datum)


@torch.no_grad()
def importance_sampling(
    model: FrozenModel,
    data: Iterable[tuple[Tensor, Tensor]],
    num_samples: int,
    *,
    weigh: Weigh | None = None,
    seed: int = 0,
    repeat: int = 0,
    purpose: str = "importance",
    chunk: int = 2048,
    between: Callable[[int], None] = lambda done: None,
) -> ImportanceEstimate:
    """log p(x) of every datum, with S = num_samples draws each.

    Memory does not grow with S but for the weights themselves, 8 bytes each, of the data in work.

    Args:
        model: gives log p(x, z) and q(z | x)
        data: numbers (B,) and values (B, *event), asked for one batch at a time
        num_samples: S
        weigh: log-weights of draws; None draws z from the encoder
        seed, repeat, purpose: name the random streams, with the number of each datum
        chunk: latent vectors decoded at a time by the encoder's draws; changes memory and speed only
        between: called with the number of data done, for progress and for stopping early
    """
    weigh = ProposalWeights(model, model.host.posterior, chunk) if weigh is None else weigh
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    together, done = max(1, chunk // num_samples), 0
    for index, x in data:
        for numbers, rows in zip(index.split(together), x.to(model.dtype).split(together), strict=True):
            found = []
            for block, start in enumerate(range(0, num_samples, _BLOCK)):
                between(done)
                names = [(purpose, seed, repeat, datum, block) for datum in numbers.tolist()]
                found.append(weigh(rows, names, min(_BLOCK, num_samples - start)).double())
            log_weights = torch.cat(found)
            log_sum = log_weights.logsumexp(0)
            effective = (2 * log_sum - (2 * log_weights).logsumexp(0)).exp()
            parts.append((log_sum - math.log(num_samples), effective, pareto_k(log_weights)))
            done += len(rows)
    between(done)
    return ImportanceEstimate(*(torch.cat(column) for column in zip(*parts, strict=True)))


class ProposalWeights:
    """log p(x, z_s) - log q(z_s | x) of draws z_s of a distribution q.

    Args:
        model: gives log p(x, z)
        propose: x (1, *event) on the CPU -> q
        chunk: latent vectors decoded at a time
    """

    def __init__(self, model: FrozenModel, propose: Proposal, chunk: int = 2048) -> None:
        self._model, self._propose, self._chunk = model, propose, chunk

    def __call__(self, x: Tensor, names: Sequence[Name], count: int) -> Tensor:
        """(count, B) for data x (B, *event) on the CPU, with a random stream for each."""
        model, drawn = self._model, []
        for datum, name in zip(x.split(1), names, strict=True):  # one by one: each is then the same in every company
            posterior = self._propose(datum)
            with stream(*name, dtype=model.dtype):
                z = posterior.rsample((count,))
            drawn.append((z, posterior.log_prob(z)))
        z, log_proposal = (torch.cat(column, 1) for column in zip(*drawn, strict=True))
        joint = model.placed.joint(x.to(model.device))
        parts = [joint(part.to(model.device)).cpu() for part in z.split(max(1, self._chunk // len(x)))]
        return torch.cat(parts) - log_proposal


def repeated(estimates: list[ImportanceEstimate]) -> Estimate:
    """Repeats over the same data as one estimate."""
    return Estimate(torch.stack([estimate.per_datum for estimate in estimates]))
