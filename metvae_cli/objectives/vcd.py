"""The variational contrastive divergence (Ruiz and Titsias 2019).

    L = KL(q_0 || p) - KL(q_K || p) + KL(q_K || q_0) = E_{q_K}[f] - E_{q_0}[f],     f(z) = log p(x, z) - log q_0(z | x)

where q_K is the law of a chain of K steps, invariant for the posterior, that starts at q_0; log q_K cancels. L >= 0,
and for long chains it is the symmetrised Kullback-Leibler divergence. Where the steps do not depend on phi it follows

    grad L = - grad E_{q_0}[f] - E_{q_K}[grad log q_0(z_K)] + E_{q_0}[(f(z_K) - b) grad log q_0(z_0)],

the first term reparameterised, b the mean of f(z_K) over the other chains of the datum; theta follows grad log p(x,
z_K), as in Fisher's identity. The bound reported is the ELBO; `divergence` gives L.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metvae_cli.kernels.adaptation import Adaptation
from metvae_cli.kernels.independent import Independent
from metvae_cli.objectives.base import Model, ObjectiveOutput
from metvae_cli.objectives.functionals import mean, without_each
from metvae_cli.objectives.split_gradient import (
    draw,
    end_with_graph,
    report,
    require_posterior_chain,
    unused_by_split,
)
from metvae_cli.samplers.chain import Sampler


class ContrastiveObjective:
    """The variational contrastive divergence for phi, Fisher's identity for theta.

    Costs one evaluation of the decoder beside the chain's, in training: z_K again, with a graph.

    Args:
        num_samples: S, chains per datum; at least 2 for the baseline

    Raises:
        ValueError: num_samples < 2
    """

    def __init__(self, num_samples: int = 2) -> None:
        if num_samples < 2:
            raise ValueError(f"num_samples={num_samples}: must be at least 2, for the leave-one-out baseline")
        self.num_samples = num_samples
        self.adaptations: Sequence[Adaptation] = ()

    def __call__(self, model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float = 1.0) -> ObjectiveOutput:
        """Draw, run the chain without a graph, and evaluate both ends with one."""
        drawn = draw(model, sampler, x, likelihood_weight, self.num_samples)
        if not torch.is_grad_enabled():
            return report(drawn, model, None, None)
        end = end_with_graph(drawn)
        improvement = (end.log_final - end.log_initial).detach()
        credit = improvement - without_each(mean, improvement)
        encoder_loss = -drawn.weights - end.log_initial + credit * drawn.posterior.log_prob(drawn.start)
        return report(drawn, model, encoder_loss.mean(), -end.log_final.mean())

    def validate(self, sampler: Sampler) -> list[str]:
        """Refuse a chain that is not invariant for the posterior (ValueError with the remedy)."""
        require_posterior_chain("vcd", sampler, self.num_samples)
        if moved_by_encoder := _moved_by_encoder(sampler):
            raise ValueError(
                "objective=vcd: takes the chain's law given z_0 to be free of the encoder, and with "
                f"{moved_by_encoder} it is not, so that phi would follow another gradient; set sampler=hmc "
                "sampler.precondition=none, or objective=hoffman"
            )
        return unused_by_split(sampler)


def _moved_by_encoder(sampler: Sampler) -> str | None:
    """The words by which steps depend on q(z | x); None where they do not."""
    if sampler.precondition == "encoder":
        return "sampler.precondition=encoder"
    if any(isinstance(kernel.proposal, Independent) for kernel in sampler.steps):
        return "sampler=independent"
    return None


def divergence(output: ObjectiveOutput) -> Tensor:
    """L of each datum, (B,): E_{q_K}[f] - E_{q_0}[f] over its chains."""
    end = output.final.log_final - output.final.log_initial
    return (end - (output.initial.log_final - output.initial.log_initial)).mean(0)
