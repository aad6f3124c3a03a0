"""Which combinations of sampler and bookkeeping are sound, and which would train something else than they say."""

import math

from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.samplers.chain import Sampler


def refuse(bookkeeping: str, sampler: Sampler) -> None:
    """Raise ValueError, with the remedy, for a combination that is unsound or would train something else."""
    if bookkeeping == "none" and sampler.num_steps > 0:
        raise ValueError(
            "bookkeeping=none: this objective would not use the sampler; "
            "set sampler=none, or objective=metvae or objective=annealed"
        )
    if bookkeeping != "path" and not sampler.reverse.is_uniform:
        raise ValueError(
            f"bookkeeping={bookkeeping}: decisions are not looked back on, so sampler.reverse=learned would not be "
            "used; set sampler.reverse=uniform, or objective=metvae"
        )
    if bookkeeping == "path" and not sampler.is_adjusted:
        raise ValueError(
            "bookkeeping=path: MetVAE needs steps that accept or reject; set sampler.acceptance=barker and "
            "sampler.num_steps to 1 or more, or objective=annealed for unadjusted steps, or "
            "objective=elbo sampler=none for no chain"
        )
    if bookkeeping == "reversal" and sampler.is_adjusted and not sampler.is_invariant:
        raise ValueError(
            "bookkeeping=reversal: accepting or rejecting these moves leaves no target invariant, so that decisions "
            "cannot be summed out; set sampler.acceptance=none, or objective=metvae"
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
            "sampler.num_steps to 1 or more"
        )
    if bookkeeping == "reversal" and sampler.is_adjusted and sampler.schedule.is_constant:
        raise ValueError(
            "bookkeeping=reversal: with an adjusted kernel and a constant schedule the weight telescopes to that of "
            "z_0 and a plain ELBO is trained unawares; set sampler.schedule=linear, or objective=metvae"
        )


def notes(bookkeeping: str, sampler: Sampler) -> list[str]:
    """What is sound but worth a word."""
    found = []
    metropolis = any(
        isinstance(kernel, MetropolisHastings) and kernel.acceptance is Acceptance.METROPOLIS
        for kernel in sampler.steps
    )
    if bookkeeping == "path" and metropolis and sampler.reverse.is_uniform:
        loss = sampler.num_steps * math.log(2)
        found.append(
            "sampler.acceptance=metropolis with a uniform reverse distribution: a valid but loose bound, since r gives "
            f"mass to rejections that cannot happen (up to K log 2 = {loss:.2f} nats are lost; barker loses less, "
            "sampler.reverse=learned too)"
        )
    if sampler.detach_forces:
        found.append("sampler.detach_forces=true: the gradient is biased (scores are treated as constants)")
    return found
