"""The chi upper bound (Dieng et al. 2017): an encoder that covers the posterior, by minimising a bound from above.

    CUBO_n = 1/n log E_q[w^n] >= log p(x),        w = p(x, z) / q(z | x),    n >= 1

Its estimate from S samples is biased low, so that phi follows the gradient of E_q[w^n] itself. Of each datum and sample
that gradient is divided by the mean of w^n over the other samples: they are independent of it, so that the direction of
each datum's gradient stays unbiased, and no datum outweighs another by its scale. A sample that outweighs the others by
more than e^20 counts as one that does so by e^20: a larger factor would be past what the gradient's norm can hold in
single precision, and the step lost. theta maximises the
importance-weighted bound of the same samples, which is the bound reported; `upper_bound` estimates CUBO_n.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from metvae_cli.kernels.adaptation import Adaptation
from metvae_cli.objectives.base import Model, ObjectiveOutput
from metvae_cli.objectives.functionals import log_mean_exp, without_each
from metvae_cli.objectives.soundness import checkpoint_notes, objective_for, refuse_path_options
from metvae_cli.objectives.split_gradient import draw, report
from metvae_cli.samplers.chain import Sampler

_LARGEST_LEAD = 20.0  # nats


class ChiObjective:
    """phi by the chi upper bound of order n, theta by the importance-weighted bound.

    Args:
        num_samples: S, draws of q(z | x) per datum; at least 2
        order: n, at least 1

    Raises:
        ValueError: a number is out of range
    """

    def __init__(self, num_samples: int = 10, order: float = 2.0) -> None:
        if num_samples < 2:
            raise ValueError(f"num_samples={num_samples}: must be at least 2, to scale each sample by the others")
        if not 1 <= order < math.inf:
            raise ValueError(f"order={order}: must be at least 1 and finite")
        self.num_samples = num_samples
        self.order = order
        self.adaptations: Sequence[Adaptation] = ()

    def __call__(self, model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float = 1.0) -> ObjectiveOutput:
        """Draw and weigh: S evaluations of the decoder per datum."""
        drawn = draw(model, sampler, x, likelihood_weight, self.num_samples)
        if not torch.is_grad_enabled():
            return report(drawn, model, None, None, log_mean_exp)
        powers = self.order * drawn.weights.detach()
        lead = powers - without_each(log_mean_exp, powers)
        encoder_loss = (lead.clamp(max=_LARGEST_LEAD).exp() * drawn.weights).mean()
        return report(drawn, model, encoder_loss, -log_mean_exp(drawn.weights, 0).mean(), log_mean_exp)

    def validate(self, sampler: Sampler) -> list[str]:
        """Refuse a chain, which would not be used (ValueError with the remedy)."""
        if sampler.num_steps > 0:
            remedy = f"sampler=none, or {objective_for(sampler)}"
            raise ValueError(f"objective=cubo: would not use the sampler; set {remedy}")
        refuse_path_options("objective=cubo", sampler)
        return checkpoint_notes(sampler)


def upper_bound(log_weights: Tensor, order: float) -> Tensor:
    """CUBO_n from log-weights (S, B), (B,): an upper bound of log p(x) only as S grows."""
    return log_mean_exp(order * log_weights, 0) / order
