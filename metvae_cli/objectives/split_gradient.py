"""What the objectives share whose encoder and decoder follow different gradients, beside a chain without one.

The gradient of each part is taken by itself and put into a scalar whose own gradient it then is, so that the trainer
needs to know nothing of it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metvae_cli.densities import AnnealedPath, Point
from metvae_cli.objectives.base import Model, ObjectiveOutput, Posterior, SplitModel
from metvae_cli.objectives.functionals import Functional, mean
from metvae_cli.objectives.soundness import checkpoint_notes, refuse_path_options, require_chains_for_scale
from metvae_cli.objectives.weights import density_of, detach, make_path, with_value
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.trajectory import Trajectory


class Draw(NamedTuple):
    """A batch at both ends of its chains.

    start: z_0, (S, B, D)
    weights: log p(x, z_0) - log q(z_0 | x), (S, B), with its graph; that leads to the encoder alone where there is a
        chain that knows the score at z_0
    trajectory: of a chain from z_0, without a graph
    path: counts the evaluations
    """

    posterior: Posterior
    path: AnnealedPath
    start: Tensor
    weights: Tensor
    trajectory: Trajectory


def draw(model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float, num_samples: int) -> Draw:
    """Draw z_0 and run the chains. z_0 is evaluated once."""
    posterior = model.posterior(x)
    log_initial = density_of(posterior)
    path = make_path(posterior, log_initial, model.joint(x, likelihood_weight), sampler)
    start = posterior.rsample((num_samples,))
    point = path.evaluate(start, create_graph=torch.is_grad_enabled() and not path.needs_score)
    log_final = point.log_final
    if point.score_final is not None:  # then its gradient in z_0 is known: the decoder is not asked again
        log_final = log_final + (point.score_final * (start - start.detach())).sum(-1)
    with torch.no_grad():
        trajectory = sampler.run(detach(point), path, create_graph=False)
    return Draw(posterior, path, start.detach(), log_final - log_initial(start), trajectory)


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
    z = drawn.trajectory.final.z
    return Point(z, drawn.path.log_initial(z), drawn.path.value_under(drawn.path.log_final, z))


def carrier(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """A scalar of value 0 whose gradient in `parameters`, and in nothing else, is that of `loss`."""
    if not parameters:  # as those of a density that is not learned
        return loss.new_zeros(())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = [
        (parameter, gradient) for parameter, gradient in zip(parameters, found, strict=True) if gradient is not None
    ]
    reached, gradients = zip(*pairs, strict=True) if pairs else ((), ())
    return cast(Tensor, _Carrier.apply(loss.new_zeros(()), len(pairs), *reached, *gradients))


class _Carrier(torch.autograd.Function):
    """A scalar with given gradients in given tensors: (scalar, n, n tensors, their n gradients) -> scalar."""

    generate_vmap_rule = True

    @staticmethod
    def forward(scalar: Tensor, count: int, *tensors: Tensor) -> Tensor:
        del count, tensors
        return scalar.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs[2 + inputs[1] :])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradients = ctx.saved_tensors
        return None, None, *(cotangents[0] * gradient for gradient in gradients), *([None] * len(gradients))


def require_posterior_chain(name: str, sampler: Sampler, num_samples: int) -> None:
    """Raise ValueError unless every step is invariant for the posterior itself and nothing of the chain is learned."""
    if not (sampler.is_invariant and sampler.schedule.is_constant):
        raise ValueError(
            f"objective={name}: needs a chain that is invariant for the posterior; set sampler=hmc "
            "sampler.acceptance=metropolis sampler.schedule=constant sampler.step_size_rule=adapted and "
            "sampler.num_steps to 1 or more"
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
