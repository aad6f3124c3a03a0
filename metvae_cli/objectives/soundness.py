"""Which combinations of sampler and bookkeeping are sound, and which would train something else than they say."""

import math

from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.base import Kernel
from metvae_cli.kernels.independent import Independent
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.unadjusted import Unadjusted
from metvae_cli.samplers.chain import Sampler


def weights_are_unbiased(bookkeeping: str, functional: str, sampler: Sampler) -> bool:
    """Whether E[w] is p(x) and not below it.

    Below it are weights of Metropolis decisions under a reverse distribution that gives mass to rejections that cannot
    happen, and the means of log w over all histories.
    """
    if sampler.decisions != "sampled" and functional == "mean":
        return False
    return not (bookkeeping == "path" and _by_metropolis(sampler) and not sampler.reverse.is_exact)


def _by_metropolis(sampler: Sampler) -> bool:
    steps = [kernel for kernel in sampler.steps if isinstance(kernel, MetropolisHastings)]
    return any(kernel.acceptance is Acceptance.METROPOLIS for kernel in steps)


def refuse(bookkeeping: str, sampler: Sampler) -> None:
    """Raise ValueError, with the remedy, for a combination that is unsound or would train something else."""
    if bookkeeping == "none" and sampler.num_steps > 0:
        raise ValueError(
            f"bookkeeping=none: this objective would not use the sampler; set sampler=none, or {objective_for(sampler)}"
        )
    if bookkeeping == "reversal" and sampler.decisions == "stopped":
        raise ValueError(
            "bookkeeping=reversal: a chain that stops where it is rejected (sampler.decisions=stopped) leaves no "
            "target invariant, so that decisions cannot be summed out; set sampler=hmc sampler.schedule=linear, or "
            f"sampler.decisions=sampled sampler.reverse=uniform, or {objective_for(sampler)}"
        )
    if bookkeeping != "path":
        refuse_path_options(f"bookkeeping={bookkeeping}", sampler, of_decisions=bookkeeping == "none")
    if bookkeeping == "path" and not sampler.is_adjusted:
        remedy = "sampler.acceptance=barker, or objective=annealed for unadjusted steps"
        if sampler.num_steps == 0:
            remedy = "sampler=hmc and sampler.num_steps to 1 or more, or objective=elbo sampler=none for no chain"
        raise ValueError(f"bookkeeping=path: MetVAE needs steps that accept or reject; set {remedy}")
    if bookkeeping == "reversal" and sampler.is_adjusted and not sampler.is_invariant:
        remedy = ["sampler.acceptance=none", *["sampler.decisions=sampled"] * (sampler.decisions != "sampled")]
        raise ValueError(
            "bookkeeping=reversal: accepting or rejecting these moves leaves no target invariant, so that decisions "
            f"cannot be summed out; set {' '.join(remedy)}, or objective=metvae"
        )
    fixed = any(kernel.proposal.fixes_noise for kernel in sampler.steps)
    if bookkeeping == "reversal" and sampler.is_adjusted and fixed:
        raise ValueError(
            "bookkeeping=reversal: decisions can be summed out only if the noise is averaged over; "
            "set sampler.noise=averaged, or objective=metvae"
        )
    if bookkeeping == "reversal" and sampler.num_steps == 0:
        raise ValueError(
            "bookkeeping=reversal: without a chain this is the plain ELBO; set objective=elbo, or sampler=langevin "
            "sampler.acceptance=none sampler.schedule=linear and sampler.num_steps to 1 or more"
        )
    if bookkeeping == "reversal" and sampler.is_adjusted and sampler.schedule.is_constant:
        raise ValueError(
            "bookkeeping=reversal: with an adjusted kernel and a constant schedule the weight telescopes to that of "
            "z_0 and a plain ELBO is trained unawares; set sampler.schedule=linear, or objective=metvae"
        )
    if bookkeeping == "reversal":
        _refuse_draws_anew(sampler)


def _refuse_draws_anew(sampler: Sampler) -> None:
    if any(_always_draws_anew(kernel) for kernel in sampler.steps):
        raise ValueError(
            "bookkeeping=reversal: where every draw from the encoder is taken the weight telescopes to that of z_K and "
            "a plain ELBO is trained unawares; set sampler.acceptance=barker sampler.schedule=linear, or "
            "sampler=none objective=elbo"
        )


def _always_draws_anew(kernel: Kernel) -> bool:
    return isinstance(kernel, Unadjusted) and kernel.skip_threshold is None and isinstance(kernel.proposal, Independent)


def _schedule_is_unused(sampler: Sampler) -> bool:
    """Whether no move is made, judged or skipped by what stands at its temperature."""
    return not sampler.needs_score and all(
        isinstance(kernel, Unadjusted) and kernel.skip_threshold is None for kernel in sampler.steps
    )


def objective_for(sampler: Sampler) -> str:
    """The words of an objective that uses this chain."""
    if not sampler.is_adjusted:
        return "objective=annealed"
    return "objective=metvae_stopped" if sampler.decisions == "stopped" else "objective=metvae"


def refuse_path_options(chosen: str, sampler: Sampler, *, of_decisions: bool = True) -> None:
    """Raise ValueError for options that an objective, named in `chosen`, would not use.

    of_decisions: it does not use how decisions are taken either
    """
    unused, remedy = [], []
    if of_decisions and sampler.decisions != "sampled":
        unused.append(f"sampler.decisions={sampler.decisions}")
        remedy.append("sampler.decisions=sampled")
    if not sampler.reverse.is_uniform:
        unused.append(f"sampler.reverse={'exact' if sampler.reverse.is_exact else 'learned'}")
        remedy.append("sampler.reverse=uniform")
    if unused:
        other = f", or {objective_for(sampler)}" if sampler.is_adjusted else ""
        passes = "no gradient passes through decisions and they" if of_decisions else "decisions"
        raise ValueError(
            f"{chosen}: {passes} are not looked back on, so that {' and '.join(unused)} would not be used; "
            f"set {' '.join(remedy)}{other}"
        )


def require_chains_for_scale(sampler: Sampler, num_samples: int) -> None:
    """Raise ValueError where an adapted scale would have nothing to adapt to."""
    if sampler.precondition == "adapted" and num_samples < 2:
        raise ValueError(
            f"num_samples={num_samples}: an adapted scale is the spread of the chains of a datum; "
            "set objective.num_samples=2 or more, or sampler.precondition=encoder"
        )


def notes(bookkeeping: str, functional: str, sampler: Sampler) -> list[str]:
    """What is sound but worth a word."""
    found = _metropolis_notes(bookkeeping, functional, sampler)
    if functional == "mean" and sampler.decisions == "stopped":
        found.append(
            "objective.functional=mean: the mean of log w over the stops of a chain is a looser bound than the log "
            "of their mean; objective=metvae_stopped has that one"
        )
    count = 2**sampler.num_steps
    doubling = [f"sampler.decisions=enumerated: {count} histories of each chain"] * (sampler.decisions == "enumerated")
    doubling += [f"sampler.reverse=exact: looks back on {count} histories of each end"] * sampler.reverse.is_exact
    if doubling:
        found.append(f"{'; '.join(doubling)}; {sampler.evaluations} evaluations of the decoder per chain in all")
    if bookkeeping == "path" and any(kernel.proposal.fixes_noise for kernel in sampler.steps):
        found.append(
            "sampler.noise=fixed: a valid but loose bound, since each refreshment shrinks the momentum (D log "
            "(1 / persistence) nats per step are lost where the chain is long; sampler.noise=averaged loses none)"
        )
    if any(isinstance(kernel, Unadjusted) and kernel.skip_threshold is not None for kernel in sampler.steps):
        found.append(
            "sampler.skip_threshold: a bound, whose gradient leaves out how many moves are skipped changes with the "
            "parameters"
        )
    if not sampler.schedule.is_constant and sampler.num_steps > 0 and _schedule_is_unused(sampler):
        found.append(
            "sampler.schedule: has no effect on the bound, since these moves read no score and all of them are made"
        )
    if sampler.detach_forces and sampler.needs_score:
        found.append("sampler.detach_forces=true: the gradient is biased (scores are treated as constants)")
    return found + checkpoint_notes(sampler)


def _metropolis_notes(bookkeeping: str, functional: str, sampler: Sampler) -> list[str]:
    """What rejections that cannot happen do to the path bookkeeping."""
    if bookkeeping != "path" or not _by_metropolis(sampler):
        return []
    found = []
    if sampler.reverse.is_uniform:
        guessed = "log (K + 1)" if sampler.decisions == "stopped" else "K log 2"
        loss = math.log(sampler.num_steps + 1) if sampler.decisions == "stopped" else sampler.num_steps * math.log(2)
        found.append(
            "sampler.acceptance=metropolis with a uniform reverse distribution: a valid but loose bound, since r gives "
            f"mass to rejections that cannot happen (up to {guessed} = {loss:.2f} nats are lost; barker loses less, "
            "sampler.reverse=learned too)"
        )
    if sampler.decisions != "sampled" and functional == "log_mean_exp" and not sampler.reverse.is_exact:
        found.append(
            "sampler.acceptance=metropolis: a bound, whose gradient leaves out how the rejections that cannot happen "
            "change with the parameters; set sampler.acceptance=barker"
        )
    return found


def checkpoint_notes(sampler: Sampler, *, differentiated: bool = True) -> list[str]:
    """Notes on computing the chain again where that has no effect, or not the whole.

    differentiated: a gradient passes through the chain
    """
    if not sampler.checkpoints:
        return []
    if sampler.num_steps == 0:
        return ["trainer.checkpoint_chain=true: has no effect, since there is no chain"]
    if not differentiated:
        return ["trainer.checkpoint_chain=true: has no effect, since no gradient passes through this chain"]
    if sampler.reverse.is_exact:
        return ["trainer.checkpoint_chain=true: what sampler.reverse=exact looks back on is kept nevertheless"]
    return []
