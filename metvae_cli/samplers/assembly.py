"""From the words of a sampler's YAML file to K kernels along a schedule."""

from collections.abc import Sequence
from typing import Literal, Protocol

from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.adaptation import (
    Adaptation,
    DualAveraging,
    ScaleAdaptation,
    StepSizeAdaptation,
    VarianceSensitive,
    check_target,
)
from metvae_cli.kernels.base import Kernel, Proposal
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.step_size import StepSize, StepSizeRule
from metvae_cli.kernels.unadjusted import Unadjusted
from metvae_cli.samplers import exact_reverse
from metvae_cli.samplers.chain import Decisions, Precondition, Sampler
from metvae_cli.samplers.reverse import Learned as LearnedReverse
from metvae_cli.samplers.reverse import LearnedStops, Reverse
from metvae_cli.samplers.schedule import Constant, Learned, Linear, Schedule, Sigmoidal

AcceptanceName = Literal["metropolis", "barker", "none"]
ScheduleName = Literal["constant", "linear", "sigmoidal", "learned"]
ScheduleStart = Literal["geometric", "linear"]
ReverseName = Literal["uniform", "learned", "exact"]

# Steps beyond which what doubles with each of them is refused.
MOST_DOUBLINGS = 5


class MakeProposals(Protocol):
    """Makes the proposals of a chain."""

    def __call__(self, step_sizes: Sequence[StepSize]) -> Sequence[Proposal]:
        """One proposal per step, each with the step size of its step."""
        ...


def assemble_sampler(
    latent_dim: int,
    make_proposals: MakeProposals | None,
    num_steps: int,
    acceptance: AcceptanceName = "none",
    schedule: ScheduleName = "constant",
    schedule_start: ScheduleStart = "linear",
    precondition: Precondition = "none",
    step_size: float = 0.1,
    step_size_rule: StepSizeRule = "fixed",
    per_step: bool = True,
    per_dimension: bool = False,
    target_accept: float = 0.65,
    detach_forces: bool = False,
    reverse: ReverseName = "uniform",
    reverse_hidden: Sequence[int] = (64,),
    reverse_detach: bool = False,
    decisions: Decisions = "sampled",
    skip_threshold: float | None = None,
    cloned_decoder: bool = False,
) -> Sampler:
    """Build a sampler.

    Args:
        latent_dim: D
        make_proposals: makes the moves; None for no chain
        num_steps: K
        acceptance: `none` takes every proposal (unadjusted)
        schedule: what the steps target: the posterior (constant) or the path from the encoder to it (linear, or with
            one learned number: sigmoidal, or with K: learned)
        schedule_start: where `learned` starts; `geometric` is the published start
        precondition: coordinates of the moves: those of z, (z - mean) / scale of the encoder per datum, or z divided by
            an adapted scale per dimension
        step_size: starting value
        step_size_rule: fixed, learned through the bound, or moved to `target_accept` (adapted: with constant gain;
            dual_averaging: with a gain that falls, for a target that stands still; variance_sensitive: shorter where
            the score varies much over a batch)
        per_step: each step has a step size of its own
        per_dimension: each latent dimension has one too
        target_accept: for the rules that adapt: the acceptance that a Metropolis test has, or would have
        detach_forces: no gradient through scores; a different, biased estimator
        reverse: of the path bookkeeping (objective=metvae): uniform, learned from z_K and the encoding of x, or exact,
            for 2^K - 1 moves more per chain
        reverse_hidden: widths of the learned one
        reverse_detach: no gradient from the learned one to z_K and the encoding; a biased gradient, still a bound
        decisions: sampled; enumerated: all 2^K histories of each chain, for 2^K - 1 moves in place of K; or stopped:
            a chain stops where it is first rejected, and all K + 1 stops are summed over, for K moves
        skip_threshold: unadjusted moves whose Metropolis ratio, or its inverse, is not above it are not made; None
            makes every move
        cloned_decoder: the chain moves on a copy of the decoder that is learned apart; the decoder weighs z_K alone

    Raises:
        ValueError: a number is out of range, or two options contradict each other
    """
    _check(make_proposals, num_steps, step_size_rule, per_dimension, target_accept)
    _check_unused(schedule, schedule_start, reverse, reverse_detach)
    dim = latent_dim if per_dimension else None
    shared = StepSize(step_size, step_size_rule, dim)
    each = [StepSize(step_size, step_size_rule, dim) if per_step else shared for _ in range(num_steps)]
    proposals = make_proposals(each) if make_proposals is not None else []
    kernels = [make_kernel(proposal, acceptance, skip_threshold) for proposal in proposals]
    sampler = Sampler(
        kernels,
        make_schedule(schedule, num_steps, schedule_start),
        detach_forces=detach_forces,
        precondition=precondition,
        latent_dim=latent_dim,
        reverse=make_reverse(reverse, decisions, latent_dim, num_steps, reverse_hidden, detach=reverse_detach),
        decisions=decisions,
        clones=cloned_decoder,
        tracks_spread=step_size_rule == "variance_sensitive",
    )
    _check_together(sampler, acceptance, reverse, skip_threshold)
    return sampler


def make_reverse(
    name: ReverseName,
    decisions: Decisions,
    latent_dim: int,
    num_steps: int,
    hidden: Sequence[int] = (64,),
    *,
    detach: bool = False,
) -> Reverse | None:
    """The reverse distribution by its name, over the histories that there are; None is the uniform one."""
    if name == "learned":
        learned = LearnedStops if decisions == "stopped" else LearnedReverse
        return learned(latent_dim, 2 * latent_dim, num_steps, hidden, detach=detach)
    return exact_reverse.Exact() if name == "exact" else None


def make_kernel(proposal: Proposal, acceptance: AcceptanceName, skip_threshold: float | None = None) -> Kernel:
    """The proposal with its acceptance rule, or unadjusted."""
    if acceptance == "none":
        return Unadjusted(proposal, skip_threshold)
    return MetropolisHastings(proposal, Acceptance(acceptance))


def make_schedule(name: ScheduleName, num_steps: int, start: ScheduleStart = "linear") -> Schedule:
    """The schedule by its name."""
    if name == "constant":
        return Constant(num_steps)
    if name == "linear":
        return Linear(num_steps)
    return Sigmoidal(num_steps) if name == "sigmoidal" else Learned(num_steps, start)


def make_adaptations(sampler: Sampler, target_accept: float) -> list[Adaptation]:
    """What adapts the sampler's step sizes and scale in training."""
    adaptations: list[Adaptation] = []
    found = step_sizes(sampler)
    rules = {step_size.rule for step_size in found}
    if "adapted" in rules:
        adaptations.append(StepSizeAdaptation(found, target_accept))
    if "dual_averaging" in rules:
        adaptations.append(DualAveraging(found, target_accept))
    if "variance_sensitive" in rules:
        adaptations.append(VarianceSensitive(found, target_accept))
    if sampler.precondition == "adapted" and sampler.num_steps:
        adaptations.append(ScaleAdaptation(sampler.scale))
    return adaptations


def step_sizes(sampler: Sampler) -> list[StepSize]:
    """The step size of each step, in order; empty if the proposals have none."""
    return [module for kernel in sampler.steps for module in kernel.proposal.modules() if isinstance(module, StepSize)]


def _check(
    make_proposals: MakeProposals | None, num_steps: int, rule: StepSizeRule, per_dimension: bool, target: float
) -> None:
    if num_steps < 0:
        raise ValueError(f"num_steps={num_steps}: must be at least 0")
    if num_steps > 0 and make_proposals is None:
        raise ValueError(f"num_steps={num_steps}: there is no proposal; choose sampler=hmc, langevin or random_walk")
    if per_dimension and rule in ("adapted", "dual_averaging"):
        raise ValueError(
            "per_dimension=true: one acceptance rate cannot tell dimensions apart; "
            "set step_size_rule=learned or per_dimension=false"
        )
    if per_dimension and rule == "fixed":
        raise ValueError("per_dimension=true: fixed step sizes are all the same; set step_size_rule=learned")
    check_target(target)


def _check_unused(
    schedule: ScheduleName, schedule_start: ScheduleStart, reverse: ReverseName, reverse_detach: bool
) -> None:
    """Options that would be read by nothing."""
    if schedule_start != "linear" and schedule != "learned":
        raise ValueError(f"schedule_start={schedule_start}: is of schedule=learned only; set schedule_start=linear")
    if reverse_detach and reverse != "learned":
        raise ValueError("reverse_detach=true: is of reverse=learned only; set reverse_detach=false")


def _check_together(
    sampler: Sampler, acceptance: AcceptanceName, reverse: ReverseName, skip_threshold: float | None
) -> None:
    num_steps, proposals = sampler.num_steps, [kernel.proposal for kernel in sampler.steps]
    if reverse == "exact" and num_steps > MOST_DOUBLINGS:
        raise ValueError(
            f"num_steps={num_steps}: the exact reverse distribution makes 2^K - 1 moves per chain, so that K may be at "
            f"most {MOST_DOUBLINGS}; set reverse=learned"
        )
    if reverse == "exact" and not all(proposal.can_retrace for proposal in proposals):
        raise ValueError(
            "reverse=exact: these moves cannot be gone back from where they led; set reverse=learned (of the flows, "
            "direction=coin and lifted with noise=none and frozen can)"
        )
    if sampler.decisions == "enumerated" and num_steps > MOST_DOUBLINGS:
        raise ValueError(
            f"num_steps={num_steps}: enumerated decisions make 2^K - 1 moves per chain, so that K may be at most "
            f"{MOST_DOUBLINGS}; set num_steps={MOST_DOUBLINGS}, or decisions=sampled"
        )
    chosen = f"decisions={sampler.decisions}"
    if sampler.decisions != "sampled" and acceptance == "none":
        raise ValueError(
            f"{chosen}: unadjusted steps take none; set acceptance=barker objective=metvae, or decisions=sampled "
            "reverse=uniform objective=annealed"
        )
    if sampler.decisions != "sampled" and any(proposal.draws_choice for proposal in proposals):
        raise ValueError(f"{chosen}: a learned coin would still be drawn; set learn_coin=false")
    if sampler.decisions == "stopped" and reverse == "exact":
        raise ValueError(f"reverse={reverse}: is not there for decisions=stopped; set reverse=learned or uniform")
    if skip_threshold is not None and acceptance != "none":
        raise ValueError(
            f"skip_threshold={skip_threshold}: is for unadjusted steps; set skip_threshold=null or acceptance=none"
        )
    if sampler.tracks_spread and not sampler.needs_score:
        raise ValueError(
            "step_size_rule=variance_sensitive: reads scores, and these moves have none; set step_size_rule=adapted"
        )
    if sampler.clones and num_steps == 0:
        raise ValueError("cloned_decoder=true: there is no chain to move on it; set cloned_decoder=false")
