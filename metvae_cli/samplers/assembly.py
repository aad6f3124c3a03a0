"""From the words of a sampler's YAML file to K kernels along a schedule."""

from collections.abc import Sequence
from typing import Literal, Protocol

from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.adaptation import Adaptation, DualAveraging, ScaleAdaptation, StepSizeAdaptation, check_target
from metvae_cli.kernels.base import Kernel, Proposal
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.step_size import StepSize, StepSizeRule
from metvae_cli.kernels.unadjusted import Unadjusted
from metvae_cli.samplers.chain import Precondition, Sampler
from metvae_cli.samplers.reverse import Learned as LearnedReverse
from metvae_cli.samplers.schedule import Constant, Learned, Linear, Schedule, Sigmoidal

AcceptanceName = Literal["metropolis", "barker", "none"]
ScheduleName = Literal["constant", "linear", "sigmoidal", "learned"]
ScheduleStart = Literal["geometric", "linear"]
ReverseName = Literal["uniform", "learned"]


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
            dual_averaging: with a gain that falls, for a target that stands still)
        per_step: each step has a step size of its own
        per_dimension: each latent dimension has one too
        target_accept: for `adapted` and `dual_averaging`: the acceptance that a Metropolis test has, or would have
        detach_forces: no gradient through scores; a different, biased estimator
        reverse: of the path bookkeeping (objective=metvae): uniform, or learned from z_K and the encoding of x
        reverse_hidden: widths of the learned one
        reverse_detach: no gradient from the learned one to z_K and the encoding; a biased gradient, still a bound

    Raises:
        ValueError: a number is out of range, or two options contradict each other
    """
    _check(make_proposals, num_steps, step_size_rule, per_dimension, target_accept)
    dim = latent_dim if per_dimension else None
    shared = StepSize(step_size, step_size_rule, dim)
    each = [StepSize(step_size, step_size_rule, dim) if per_step else shared for _ in range(num_steps)]
    proposals = make_proposals(each) if make_proposals is not None else []
    kernels = [make_kernel(proposal, acceptance) for proposal in proposals]
    return Sampler(
        kernels,
        make_schedule(schedule, num_steps, schedule_start),
        detach_forces=detach_forces,
        precondition=precondition,
        latent_dim=latent_dim,
        reverse=LearnedReverse(latent_dim, 2 * latent_dim, num_steps, reverse_hidden, detach=reverse_detach)
        if reverse == "learned"
        else None,
    )


def make_kernel(proposal: Proposal, acceptance: AcceptanceName) -> Kernel:
    """The proposal with its acceptance rule, or unadjusted."""
    if acceptance == "none":
        return Unadjusted(proposal)
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
    check_target(target)
