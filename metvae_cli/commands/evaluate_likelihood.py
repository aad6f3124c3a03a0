"""The estimators of log p(x) that `metvae evaluate` runs, one function each."""

import math
from typing import Any

import torch
from torch import Tensor

from metvae_cli.build import LoadedRun
from metvae_cli.commands.evaluate_request import ProposalName, Request
from metvae_cli.commands.evaluate_step import Outcome, PerDatum, Workplace, with_error
from metvae_cli.errors import ConfigError
from metvae_cli.evaluation.annealed_likelihood import (
    AnnealedEstimate,
    Simulated,
    annealed_importance_sampling,
    bidirectional,
    simulate,
)
from metvae_cli.evaluation.annealing import AnnealingSettings
from metvae_cli.evaluation.estimate import Estimate, bits_per_dimension
from metvae_cli.evaluation.exact import exact_likelihood, has_exact_likelihood
from metvae_cli.evaluation.frozen import batches
from metvae_cli.evaluation.importance import (
    ImportanceEstimate,
    Proposal,
    ProposalWeights,
    Weigh,
    importance_sampling,
    repeated,
)
from metvae_cli.evaluation.path_weights import bookkeeping_of, chain_weights, flow_weights
from metvae_cli.evaluation.proposals import overdispersed, retrain_encoder
from metvae_cli.models.vae import VAE
from metvae_cli.objectives.soundness import weights_are_unbiased
from metvae_cli.schema import key_name

# Above it an importance estimate converges too slowly to be of use (Vehtari et al. 2024).
_LARGEST_K = 0.7
_SHARE_TO_WARN = 0.05


def importance(work: Workplace) -> Outcome:
    """Importance sampling from the encoder, spread out or trained anew, or over the paths of the chain."""
    settings, model = work.request.importance, work.frozen
    proposal, weigh, training = _weights(work)
    estimates = []
    with work.progress(
        f"importance sampling, S = {settings.num_samples}", settings.repeats * len(work.chosen)
    ) as report:
        for repeat in range(settings.repeats):
            offset = repeat * len(work.chosen)
            estimates.append(
                importance_sampling(
                    model,
                    batches(work.run.dataset, work.split, work.chosen),
                    settings.num_samples,
                    weigh=weigh,
                    seed=work.request.general.seed,
                    repeat=repeat,
                    chunk=settings.chunk,
                    between=lambda done, before=offset: report(before + done),
                )
            )
    found = repeated(estimates)
    k, effective = (_mean_over(estimates, name) for name in ("pareto_k", "effective_samples"))
    poor = math.nan if settings.num_samples < 25 else (~(k <= _LARGEST_K)).double().mean().item()  # NaN is poor
    results = {
        **_numbers(work, found),
        "num_samples": settings.num_samples,
        "proposal": proposal,
        **({"retraining_bounds": training} if training else {}),
        "effective_samples": effective.mean().item(),
        "smallest_effective_samples": effective.min().item(),
        "pareto_k": k[torch.isfinite(k)].mean().item() if torch.isfinite(k).any() else math.nan,
        "largest_pareto_k": k.max().item(),
        "share_of_data_above_0.7": poor,
    }
    name = f"log-likelihood, importance sampling (S = {settings.num_samples}, {proposal})"
    rows = [
        (name, with_error(found.mean, found.standard_error, found.repeat_error)),
        ("  effective samples, Pareto k", f"{effective.mean():.0f}, {_shown(results['pareto_k'])}"),
    ]
    columns = {"importance": found.per_datum, "importance_effective_samples": effective, "importance_pareto_k": k}
    warnings = [*_distrust(proposal, poor), *_falls_short(proposal, work.run)]
    return Outcome(results, rows, _columns(work.chosen, columns), warnings=warnings)


def check_proposal(run: LoadedRun, request: Request) -> None:
    """Raise ConfigError where the run has nothing to draw from as asked."""
    if request.importance.proposal == "chain" and "importance" in request.general.estimators:
        try:
            bookkeeping_of(run.sampler, run.objective)
        except ValueError as error:
            raise ConfigError(key_name("importance", str(error))) from None


def _weights(work: Workplace) -> tuple[ProposalName, Weigh, list[float]]:
    """The proposal, log-weights of its draws, and the bounds of its training where it was trained anew."""
    settings, model, run = work.request.importance, work.frozen, work.run
    if settings.proposal == "chain":
        return "chain", chain_weights(model, run.sampler, run.objective), []
    if settings.proposal == "auto" and (of_flow := flow_weights(model, run.sampler, run.objective)):
        return "chain", of_flow, []
    if settings.proposal == "retrained":
        encoder, bounds = _retrained(work)
        return "retrained", ProposalWeights(model, encoder, settings.chunk), bounds
    if settings.proposal == "overdispersed":
        wide = overdispersed(model.host.posterior, settings.widen)
        return "overdispersed", ProposalWeights(model, wide, settings.chunk), []
    return "encoder", ProposalWeights(model, model.host.posterior, settings.chunk), []


def _retrained(work: Workplace) -> tuple[Proposal, list[float]]:
    """An encoder trained anew, and the bounds of its training."""
    settings, run = work.request.importance, work.run
    with work.progress("training an encoder on the frozen decoder", settings.retrain_epochs) as report:
        encoder, bounds = retrain_encoder(
            run.model,
            run.dataset,
            settings.retrain_epochs,
            settings.retrain_lr,
            seed=work.request.general.seed,
            between=report,
        )
    return encoder.to("cpu", work.frozen.dtype).eval().requires_grad_(False), list(bounds)


def _falls_short(proposal: ProposalName, run: LoadedRun) -> list[str]:
    """A warning where the weights of paths have a mean below p(x), which neither more draws nor Pareto k show."""
    if proposal != "chain":
        return []
    if weights_are_unbiased(bookkeeping_of(run.sampler, run.objective), "log_mean_exp", run.sampler):
        return []
    return [
        "importance sampling over the paths of Metropolis decisions stays below log p(x), however many are drawn, "
        "unless sampler.reverse=exact; take importance.proposal=encoder or retrained, or believe ais"
    ]


def _distrust(proposal: ProposalName, poor: float) -> list[str]:
    if not poor > _SHARE_TO_WARN:
        return []
    other = "overdispersed or retrained" if proposal == "encoder" else "retrained"
    return [
        f"importance sampling: the weights of {100 * poor:.0f} % of the data have Pareto k above {_LARGEST_K}: their "
        f"log-likelihood is too low, by an unknown amount; try importance.proposal={other}, or believe ais"
    ]


def ais(work: Workplace) -> Outcome:
    """Annealed importance sampling from the prior or the encoder."""
    settings, index = work.request.ais, work.at_most(work.request.ais.data)
    estimates = []
    with work.progress(f"AIS, {settings.num_temperatures} temperatures", settings.repeats * len(index)) as report:
        for repeat in range(settings.repeats):
            offset = repeat * len(index)
            estimates.append(
                annealed_importance_sampling(
                    work.frozen,
                    batches(work.run.dataset, work.split, index),
                    settings,
                    work.request.general.seed,
                    repeat,
                    between=lambda done, before=offset: report(before + done),
                )
            )
    found = _of_annealed(estimates)
    results = _numbers(work, found) | _annealing(settings, estimates)
    name = (
        f"log-likelihood, AIS from the {settings.start} ({len(index)} data, {settings.num_temperatures} temperatures)"
    )
    rows = [(name, with_error(found.mean, found.standard_error, found.repeat_error))]
    return Outcome(results, rows, _columns(index, {"ais": found.per_datum}))


def bdmc(work: Workplace) -> Outcome:
    """Bidirectional Monte Carlo on simulated data, with importance sampling on the same data beside it."""
    settings, general = work.request.bdmc, work.request.general
    assert settings.data is not None, "refused where the request is read"
    count = settings.data
    simulated = simulate(work.frozen, count, general.seed, between=lambda done: work.check())
    lower, upper = [], []
    with work.progress(f"BDMC, {settings.num_temperatures} temperatures", settings.repeats * count) as report:
        for repeat in range(settings.repeats):
            offset = repeat * count
            both = bidirectional(
                work.frozen,
                simulated,
                settings,
                general.seed,
                repeat,
                between=lambda done, before=offset: report(before + done),
            )
            lower.append(both[0])
            upper.append(both[1])
    low, high = _of_annealed(lower), _of_annealed(upper)
    gap, between = Estimate(high.values - low.values), _importance_on(work, simulated)
    named = {"lower": low, "upper": high, "gap": gap, "importance": between}
    results = {
        **{name: _numbers(work, each, bits=name != "gap") for name, each in named.items()},
        **_annealing(settings, lower),
    }
    rows = [
        (f"BDMC on {count} simulated data: lower bound", with_error(low.mean, low.standard_error, low.repeat_error)),
        ("  importance sampling on the same data", with_error(between.mean, between.standard_error)),
        ("  upper bound", with_error(high.mean, high.standard_error, high.repeat_error)),
        ("  gap", with_error(gap.mean, gap.standard_error)),
    ]
    columns = {f"bdmc_{name}": each.per_datum for name, each in named.items() if name != "gap"}
    return Outcome(results, rows, simulated=_columns(torch.arange(count), columns))


def _importance_on(work: Workplace, simulated: Simulated) -> Estimate:
    data = [(torch.arange(len(simulated.x)), simulated.x)]
    settings, seed = work.request.importance, work.request.general.seed
    found = importance_sampling(
        work.frozen,
        data,
        settings.num_samples,
        weigh=flow_weights(work.frozen, work.run.sampler, work.run.objective),
        seed=seed,
        chunk=settings.chunk,
        between=lambda done: work.check(),
    )
    return repeated([found])


def exact(work: Workplace) -> Outcome | None:
    """The exact likelihood; None where the model has none that can be computed."""
    model, settings = work.frozen.host, work.request.exact
    if not isinstance(model, VAE) or not has_exact_likelihood(model):
        return None
    index = work.at_most(settings.data)
    with work.progress("exact likelihood", 1.0) as report:
        found = exact_likelihood(model, batches(work.run.dataset, work.split, index), settings.points, report)
    estimate, error = Estimate(found.per_datum[None]), found.error.abs().max().item()
    results = {
        **_numbers(work, estimate),
        "method": found.method,
        "largest_error": error,
        "prior_mass": found.prior_mass,
    }
    name = f"log-likelihood, exact ({len(index)} data, {found.method})"
    warnings = []
    if error > 1e-3:
        warnings.append(
            f"exact: the grid is too coarse for some posteriors (off by up to {error:.2g} nats); raise exact.points"
        )
    if abs(found.prior_mass - 1) > 1e-6:
        warnings.append(
            f"exact: the grid holds {found.prior_mass:.8g} of the prior's mass, not all of it: raise exact.points, or "
            "believe importance"
        )
    rows = [(name, with_error(estimate.mean, estimate.standard_error))]
    return Outcome(results, rows, _columns(index, {"exact": found.per_datum}), warnings=warnings)


def _of_annealed(estimates: list[AnnealedEstimate]) -> Estimate:
    return Estimate(torch.stack([estimate.per_datum for estimate in estimates]))


def _annealing(settings: AnnealingSettings, estimates: list[AnnealedEstimate]) -> dict[str, Any]:
    return {
        "num_temperatures": settings.num_temperatures,
        "num_chains": settings.num_chains,
        "num_leapfrog": settings.num_leapfrog,
        "start": settings.start,
        "accept_prob": sum(estimate.accept_prob for estimate in estimates) / len(estimates),
        "effective_chains": torch.stack([estimate.effective_chains for estimate in estimates]).mean().item(),
    }


def _numbers(work: Workplace, estimate: Estimate, *, bits: bool = True) -> dict[str, Any]:
    """What every estimate says."""
    dataset = work.run.dataset
    size = math.prod(dataset.event_shape)
    per_value = bits_per_dimension(estimate.mean, size, dequantized=dataset.dequantize)
    return {
        "nats": estimate.mean,
        "standard_error_over_data": estimate.standard_error,
        "standard_error_over_repeats": estimate.repeat_error,
        **({"bits_per_dimension": per_value} if bits else {}),
        "data": estimate.values.shape[1],
        "repeats": estimate.values.shape[0],
    }


def _columns(index: Tensor, values: dict[str, Tensor]) -> dict[str, PerDatum]:
    return {name: PerDatum(index, column) for name, column in values.items()}


def _shown(k: float) -> str:
    return "- (too few samples to tell)" if math.isnan(k) else f"{k:.2f}"


def _mean_over(estimates: list[ImportanceEstimate], name: str) -> Tensor:
    return torch.stack([getattr(estimate, name) for estimate in estimates]).mean(0)
