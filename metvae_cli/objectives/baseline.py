"""A baseline of the score function that remembers: what the steps from each one on have added on average.

A decision of step k has no part in what came before it, so the weight of the chain as it stood before that step is
taken off, and what is left, the credit of the steps from k on, is compared with its own running mean:

    coefficient_k = log w - log w_(k-1) - b_k,    log w_(k-1) = log p(x, z_(k-1)) - log q(z_0 | x) + increments so far

Both are fixed before the decision is drawn (b_k by earlier batches), so that the gradient stays unbiased. It needs no
second chain per datum.
"""

import torch
from torch import Tensor

from metvae_cli.kernels.adaptation import Adaptation, Outcome


class RunningBaseline(Adaptation):
    """b, one number per step.

    Args:
        num_steps: K
        rate: weight of a batch in the running mean
    """

    mean: Tensor
    count: Tensor

    def __init__(self, num_steps: int, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("mean", torch.zeros(num_steps))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, outcome: Outcome) -> None:
        """Move each mean towards that of the batch; the first batch sets it."""
        credit = outcome.credit
        if credit is None or not torch.isfinite(credit).all():
            return
        self.count += 1
        self.mean.lerp_(credit.to(self.mean), (1 / self.count).clamp(min=self.rate))


def running_score_term(credit: Tensor, mean: Tensor, log_probability: Tensor) -> Tensor:
    """Zero-mean term (B,) whose gradient is the score-function part of the gradient of the mean of the log-weights.

    Args:
        credit: of each step, (K, S, B)
        mean: b, (K,)
        log_probability: of what each step drew without a gradient, (K, S, B), with its graph
    """
    coefficient = credit - mean[:, None, None].to(credit)
    return (coefficient * log_probability).sum(0).mean(0)


def credits_of_steps(log_weights: Tensor, increments: Tensor, log_final: Tensor, log_initial: Tensor) -> Tensor:
    """log w - log w_(k-1) of each step, (K, S, B), without a graph.

    Args:
        log_weights: log w, (S, B)
        increments: of each step, (K, S, B)
        log_final: log p(x, z) where each step began, (K, S, B)
        log_initial: log q(z_0 | x), (S, B)
    """
    before = increments.detach().cumsum(0) - increments.detach()
    return log_weights.detach() - (log_final - log_initial.detach() + before)
