"""What the objectives share whose encoder and decoder follow different gradients, beside a chain without one.

The gradient of each part is taken by itself and put into a scalar whose own gradient it then is, so that the trainer
needs to know nothing of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metvae_cli.densities import AnnealedPath, Point
from metvae_cli.objectives.base import Model, ObjectiveOutput, Posterior, SplitModel
from metvae_cli.objectives.functionals import Functional, mean
from metvae_cli.objectives.soundness import checkpoint_notes, refuse_path_options, require_chains_for_scale
from metvae_cli.objectives.weights import detach, make_path, with_value
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.trajectory import Trajectory


class Draw(NamedTuple):
    """A batch at both ends of its chains.

    start: z_0, (S, B, D); weights: log p(x, z_0) - log q(z_0 | x), (S, B), with its graph
    trajectory: of a chain from z_0, without a graph
    path: counts the evaluations
    """

    posterior: Posterior
    path: AnnealedPath
    start: Tensor
    weights: Tensor
    trajectory: Trajectory


def draw(model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float, num_samples: int) -> Draw:
    """Draw z_0 and run the chains. z_0 is evaluated once: its values keep their graph, its scores have none."""
    posterior = model.posterior(x)
    path = make_path(posterior, posterior.log_prob, model.joint(x, likelihood_weight), sampler)
    path.detach_forces = True
    point = path.evaluate(posterior.rsample((num_samples,)), create_graph=torch.is_grad_enabled())
    with torch.no_grad():
        trajectory = sampler.run(detach(point), path, create_graph=False)
    return Draw(posterior, path, point.z.detach(), point.log_final - point.log_initial, trajectory)


def report(
    drawn: Draw,
    model: Model,
    encoder_loss: Tensor | None,
    decoder_loss: Tensor | None,
    functional: Functional = mean,
) -> ObjectiveOutput:
    """A bound, the ELBO unless said otherwise, as the loss's value; its gradient is that of each loss in its own part.

    Without losses, outside training, there is the value alone.
    """
    bound = functional(drawn.weights, 0)
    loss = -bound.mean()
    if encoder_loss is not None and decoder_loss is not None:
        assert isinstance(model, SplitModel)
        inference, generative = list(model.inference_parameters()), list(model.generative_parameters())
        loss = with_value(loss, carrier(encoder_loss, inference) + carrier(decoder_loss, generative), None)
    return ObjectiveOutput(
        loss=loss,
        score_loss=None,
        bound=bound.detach(),
        log_weights=drawn.weights.detach(),
        initial=detach(drawn.trajectory.initial),
        final=detach(drawn.trajectory.final),
        info=drawn.trajectory.info,
        evaluations=drawn.path.evaluations,
        score_moments=drawn.trajectory.score_moments,
    )


def end_with_graph(drawn: Draw) -> Point:
    """z_K evaluated again, for the gradient in theta that the chain has not: one evaluation."""
    return drawn.path.evaluate(drawn.trajectory.final.z, create_graph=True)


def carrier(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """A scalar of value 0 whose gradient in `parameters`, and in nothing else, is that of `loss`."""
    if not parameters:  # as those of a density that is not learned
        return loss.new_zeros(())
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    total = loss.new_zeros(())
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            product = (parameter * gradient.detach()).sum()
            total = total + product - product.detach()
    return total


def require_posterior_chain(name: str, sampler: Sampler, num_samples: int) -> None:
    """Raise ValueError unless every step is invariant for the posterior itself and nothing of the chain is learned."""
    if not (sampler.is_invariant and sampler.schedule.is_constant):
        raise ValueError(
            f"objective={name}: needs a chain that is invariant for the posterior; set sampler=hmc "
            "sampler.acceptance=metropolis sampler.schedule=constant and sampler.num_steps to 1 or more"
        )
    refuse_path_options(f"objective={name}", sampler)
    if learned := _learned(sampler):
        raise ValueError(
            f"objective={name}: gives the sampler no gradient, so that {' and '.join(learned)} would not be learned; "
            "set sampler.step_size_rule=adapted or fixed with sampler=hmc, langevin or random_walk, "
            "and no learn_ option"
        )
    if sampler.clones:
        raise ValueError(
            f"objective={name}: needs a chain that is invariant for the posterior, and the one of a copied decoder is "
            "another; set sampler.cloned_decoder=false"
        )
    require_chains_for_scale(sampler, num_samples)


def _learned(sampler: Sampler) -> list[str]:
    """What of a sampler waits for a gradient."""
    words = {
        "log_value": "step sizes",
        "logit": "persistence or coins",
        "bijection": "flows",
        "schedule": "the schedule",
    }
    names = [name for name, parameter in sampler.named_parameters() if parameter.requires_grad]
    found = [said for part, said in words.items() if any(part in name for name in names)]
    return found or ["its parameters"] * bool(names)


def unused_by_split(sampler: Sampler) -> list[str]:
    """Notes on options that have no effect where no gradient passes through the chain."""
    found = []
    if sampler.detach_forces:
        found.append("sampler.detach_forces=true: has no effect, since no gradient passes through this chain")
    if any(kernel.proposal.fixes_noise for kernel in sampler.steps):
        found.append("sampler.noise=fixed: has no effect, since the chain enters no weight")
    return found + checkpoint_notes(sampler, differentiated=False)
