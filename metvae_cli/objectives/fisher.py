"""Fisher's identity with a short chain (Hoffman 2017): maximum likelihood for the decoder, the ELBO for the encoder.

    grad log p_theta(x) = E_{p_theta(z | x)} [ grad log p_theta(x, z) ]

theta follows grad log p_theta(x, z_K), where z_K is the end of a chain that starts at the encoder's draw and is
invariant for the posterior; phi follows the ELBO at z_0. No gradient passes through the chain, and no bound is
maximised: the bound reported is the ELBO. The bias vanishes as K grows, or where q is the posterior.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metvae_cli.kernels.adaptation import Adaptation
from metvae_cli.objectives.base import Model, ObjectiveOutput
from metvae_cli.objectives.split_gradient import (
    draw,
    end_with_graph,
    report,
    require_posterior_chain,
    unused_by_split,
)
from metvae_cli.samplers.chain import Sampler


class FisherObjective:
    """Hoffman's algorithm.

    Costs one evaluation of the decoder beside the chain's, in training: z_K again, with a graph.

    Args:
        num_samples: S, chains per datum

    Raises:
        ValueError: num_samples < 1
    """

    def __init__(self, num_samples: int = 1) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: must be at least 1")
        self.num_samples = num_samples
        self.adaptations: Sequence[Adaptation] = ()

    def __call__(self, model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float = 1.0) -> ObjectiveOutput:
        """Draw, run the chain without a graph, and evaluate both ends with one."""
        drawn = draw(model, sampler, x, likelihood_weight, self.num_samples)
        if not torch.is_grad_enabled():
            return report(drawn, model, None, None)
        return report(drawn, model, -drawn.weights.mean(), -end_with_graph(drawn).log_final.mean())

    def validate(self, sampler: Sampler) -> list[str]:
        """Refuse a chain that is not invariant for the posterior (ValueError with the remedy)."""
        require_posterior_chain("hoffman", sampler, self.num_samples)
        return unused_by_split(sampler)
