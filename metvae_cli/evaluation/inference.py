"""How well a trained sampler, or a plain chain, stands for a target density."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath
from metvae_cli.evaluation.convergence import effective_size, pareto_k, r_hat
from metvae_cli.evaluation.distances import energy_distance, mmd
from metvae_cli.evaluation.long_chains import LongChains, run_long_chains
from metvae_cli.evaluation.modes import count_modes
from metvae_cli.kernels.adaptation import Adaptation
from metvae_cli.models.inference import Inference
from metvae_cli.objectives.base import Objective
from metvae_cli.objectives.soundness import weights_are_unbiased
from metvae_cli.objectives.weights import WeightObjective, make_path
from metvae_cli.samplers.chain import Sampler
from metvae_cli.targets.base import Target

# Distances take all pairs: more draws than these would make them the longest part of a run.
_COMPARED = 4000


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured after training, or of a plain chain; the node `evaluation` of `configs/infer.yaml`.

    Args:
        draws: of the trained sampler, z_K from z_0 ~ q_0, each with its weight
        chains: long chains, from starts spread over the window of the target; 0 is none
        chain_draws: draws kept of each, one per `thin` rounds of the sampler's K kernels
        warm_up: rounds before them, in which step sizes are adapted
        thin: rounds per draw that is kept
        walk: steps of the chain that is drawn move by move; 0 is none

    Raises:
        ValueError: a number is out of range
    """

    draws: int = 8000
    chains: int = 10
    chain_draws: int = 2000
    warm_up: int = 500
    thin: int = 1
    walk: int = 100

    def __post_init__(self) -> None:
        least = {"draws": 10, "chains": 0, "chain_draws": 4, "warm_up": 0, "thin": 1, "walk": 0}
        for field in fields(self):
            value = getattr(self, field.name)
            if value < least[field.name]:
                raise ValueError(f"{field.name}={value}: must be at least {least[field.name]}")
        most = {"draws": 10_000_000, "chains": 10_000, "walk": 100_000}
        for name, largest in most.items():
            if getattr(self, name) > largest:
                raise ValueError(f"{name}={getattr(self, name)}: must be at most {largest}, which fits into memory")


class Approximation(NamedTuple):
    """Fresh draws of a trained sampler, N chains from q_0.

    initial: z_0, (N, D); draws: z_K, (N, D)
    bound, bound_se: mean of the objective's bound and its standard error, nats
    log_normalizer, log_normalizer_se: estimate from the weights, log of their mean, with the delta method's error
    is_unbiased: E[w] is Z; where it is below, so is the estimate
    pareto_k: shape of the tail of the weights; above 0.7 estimate and error cannot be trusted
    effective: (sum w)^2 / sum w^2 / N, between 1 / N and 1
    """

    initial: Tensor
    draws: Tensor
    bound: float
    bound_se: float
    log_normalizer: float
    log_normalizer_se: float
    is_unbiased: bool
    pareto_k: float
    effective: float


@torch.no_grad()
def approximate(
    objective: Objective,
    model: Inference,
    sampler: Sampler,
    x: Tensor,
    count: int,
    between: Callable[[int], None] = lambda done: None,
) -> Approximation:
    """Draw and weigh at least `count` chains, a batch of the blank rows x (B, 1) at a time.

    between: called with the number of batches done, for stopping early
    """
    model.eval()
    sampler.eval()
    initial, draws, bounds, weights = [], [], [], []
    for done in range(-(-count // (objective.num_samples * len(x)))):
        between(done)
        output = objective(model, sampler, x)
        initial.append(output.initial.z.flatten(0, 1).cpu())
        draws.append(output.final.z.flatten(0, 1).cpu())
        bounds.append(output.bound.double().cpu())
        weights.append(output.log_weights.flatten().double().cpu())
    bound, log_weights = torch.cat(bounds), torch.cat(weights)
    number = len(log_weights)
    log_mean = log_weights.logsumexp(0) - math.log(number)
    effective = (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp().item() / number
    relative_variance = (log_weights - log_mean).exp().var().item()
    return Approximation(
        torch.cat(initial),
        torch.cat(draws),
        bound.mean().item(),
        bound.std().item() / math.sqrt(len(bound)),
        log_mean.item(),
        math.sqrt(relative_variance / number),
        not isinstance(objective, WeightObjective)
        or weights_are_unbiased(objective.bookkeeping, objective.functional_name, sampler),
        pareto_k(log_weights[:, None]).item(),
        effective,
    )


def chain_path(model: Inference, sampler: Sampler) -> AnnealedPath:
    """The path from q_0 to the target, for one blank row."""
    blank = model.blank(1)
    posterior = model.posterior(blank)
    return make_path(posterior, posterior.log_prob, model.joint(blank), sampler)


def long_chains(
    target: Target,
    model: Inference,
    sampler: Sampler,
    settings: EvaluationSettings,
    adaptations: Sequence[Adaptation],
    between: Callable[[int], None] = lambda done: None,
) -> LongChains:
    """Chains of the sampler's kernels alone, from starts spread over the target's window."""
    with torch.no_grad():
        path = chain_path(model, sampler)
    start = target.spread_out(settings.chains)[:, None].to(sampler.scale)
    return run_long_chains(
        sampler, path, start, settings.chain_draws, settings.warm_up, adaptations, settings.thin, between
    )


def describe_approximation(found: Approximation, target: Target, exact: Tensor | None) -> dict[str, float]:
    """The numbers of an approximation, by their names in summary.json."""
    numbers: dict[str, float] = {
        "bound": found.bound,
        "bound_se": found.bound_se,
        "log_normalizer": found.log_normalizer,
        "log_normalizer_se": found.log_normalizer_se,
        "log_normalizer_is_unbiased": found.is_unbiased,
        "pareto_k": found.pareto_k,
        "effective_weights": found.effective,
    }
    if target.log_normalizer is not None:
        numbers["log_normalizer_exact"] = target.log_normalizer
        numbers["log_normalizer_error"] = found.log_normalizer - target.log_normalizer
    return numbers | {f"samples/{name}": value for name, value in compare(found.draws, target, exact).items()}


def describe_chains(chains: LongChains, target: Target, exact: Tensor | None) -> dict[str, float]:
    """The numbers of long chains, by their names in summary.json.

    R-hat and effective size are those of the worst coordinate, NaN where a chain never moved; least_moved is the share
    of the rounds in which the chain that moved least did so.
    """
    by_chain = chains.by_chain[:, :, 0].cpu()
    size = effective_size(by_chain).min().item()  # of NaN the minimum is NaN
    evaluations = chains.evaluations * by_chain.shape[0]
    numbers = {
        "r_hat": r_hat(by_chain).max().item(),
        "effective_size": size,
        "effective_size_per_evaluation": size / evaluations,
        "evaluations": evaluations,
        "accept": chains.accept_prob.mean().item(),
        "divergent": chains.divergent,
        "least_moved": chains.moved.float().mean((0, 2)).min().item(),
        **compare(by_chain.flatten(0, 1), target, exact),
    }
    return {f"chains/{name}": value for name, value in numbers.items()}


def compare(draws: Tensor, target: Target, exact: Tensor | None) -> dict[str, float]:
    """Draws (N, D) against exact ones and against the modes, where there are any."""
    numbers: dict[str, float] = {}
    if target.modes is not None:
        counted = count_modes(draws, target.modes)
        numbers |= {"modes_found": counted.found, "mode_weight_error": counted.weight_error}
    if exact is not None:
        thinned = draws[torch.linspace(0, len(draws) - 1, min(len(draws), _COMPARED)).long()]
        numbers |= {
            "energy_distance": energy_distance(thinned, exact[:_COMPARED]),
            "mmd": mmd(thinned, exact[:_COMPARED]),
        }
    return numbers
