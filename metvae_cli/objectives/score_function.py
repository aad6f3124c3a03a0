"""The score-function term: the gradient that passes through the probabilities of accept and reject decisions.

Decisions are drawn without a gradient. With A_s = sum_k log alpha_k of the decisions of chain s and the bound
L = F(log w_1, ..., log w_S), the missing part of the gradient is E[L grad sum_s A_s]. The bound without chain s does
not depend on its decisions, so it may be taken off as a baseline without bias:

    coefficient_s = F(all) - F(all but s)        surrogate = F + sum_s coefficient_s.detach() A_s

For the mean this is the leave-one-out baseline, (log w_s - mean of the others) / S.
"""

from typing import Literal

from torch import Tensor

from metvae_cli.objectives.functionals import Functional, without_each

Baseline = Literal["leave_one_out", "running", "none"]


def score_term(
    functional: Functional, log_weights: Tensor, log_probability: Tensor, leave_one_out: bool = True
) -> Tensor:
    """Zero-mean term (B,) whose gradient is the score-function part of the gradient of the bound.

    Args:
        functional: F
        log_weights: (S, B), S >= 2 for the leave-one-out baseline
        log_probability: (K, S, B), log-probabilities of what was drawn without a gradient, with their graph
        leave_one_out: without a baseline the term is unbiased too, and of far larger variance
    """
    coefficient = functional(log_weights.detach(), 0)
    if leave_one_out:
        coefficient = coefficient - without_each(functional, log_weights.detach())
    return (coefficient * log_probability.sum(0)).sum(0)
