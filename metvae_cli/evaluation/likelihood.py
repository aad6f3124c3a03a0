"""Test log-likelihood by importance sampling from the encoder (Burda et al. 2016, section 2).

    log p(x) >= E[ log (1/S) sum_s p(x, z_s) / q(z_s | x) ],        z_s ~ q(z | x)

The estimate per datum is biased low by about Var(w) / (2 S p(x)^2): it bounds log p(x) from below in expectation for
every S and approaches it as S grows.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.objectives.base import Model


class LogLikelihood(NamedTuple):
    """per_datum: (N,) estimates in nats. effective_samples: (N,), (sum w)^2 / sum w^2, between 1 and S."""

    per_datum: Tensor
    effective_samples: Tensor

    @property
    def mean(self) -> float:
        """Mean over data, nats per datum."""
        return self.per_datum.mean().item()

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over data; NaN for one datum."""
        count = len(self.per_datum)
        return self.per_datum.std().item() / math.sqrt(count) if count > 1 else math.nan


@torch.no_grad()
def importance_sampling(
    model: Model,
    batches: Iterable[Tensor],
    num_samples: int,
    chunk: int = 2048,
    between: Callable[[int], None] = lambda done: None,
) -> LogLikelihood:
    """log p(x) of every datum of `batches`, with S = num_samples draws each, in constant memory.

    Args:
        model: gives q(z | x) and log p(x, z)
        batches: data, each (B, *event); asked for one at a time
        num_samples: S
        chunk: latent vectors decoded at a time
        between: called with the number of batches done, for progress and for stopping early
    """
    values, effective = [], []
    done = 0
    for done, x in enumerate(batches, start=1):
        between(done - 1)
        log_sum, log_sum_square = _log_sums(model, x, num_samples, chunk)
        values.append(log_sum - math.log(num_samples))
        effective.append((2 * log_sum - log_sum_square).exp())
    between(done)
    return LogLikelihood(torch.cat(values).cpu(), torch.cat(effective).cpu())


def _log_sums(model: Model, x: Tensor, num_samples: int, chunk: int) -> tuple[Tensor, Tensor]:
    """log sum_s w_s and log sum_s w_s^2, each (B,), in double precision."""
    posterior, joint = model.posterior(x), model.joint(x)
    log_sum = log_sum_square = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    per_chunk = max(1, chunk // len(x))
    for start in range(0, num_samples, per_chunk):
        z = posterior.rsample((min(per_chunk, num_samples - start),))
        log_weights = (joint(z) - posterior.log_prob(z)).double()
        log_sum = torch.logaddexp(log_sum, log_weights.logsumexp(0))
        log_sum_square = torch.logaddexp(log_sum_square, (2 * log_weights).logsumexp(0))
    return log_sum, log_sum_square
