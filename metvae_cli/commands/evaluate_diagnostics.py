"""What `metvae evaluate` looks at beside the likelihood: the sampler as trained, and the latent space."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from metvae_cli.commands.evaluate_step import Outcome, PerDatum, Workplace, listed
from metvae_cli.data.binarization import settled
from metvae_cli.evaluation import sampler_diagnostics as diagnostics
from metvae_cli.evaluation.importance import ProposalWeights, importance_sampling
from metvae_cli.evaluation.latent_quality import Encoded, active_units, distance_to_prior, encode, linear_probe
from metvae_cli.evaluation.long_chains import can_run_long
from metvae_cli.evaluation.posterior_pictures import posterior_densities
from metvae_cli.evaluation.proposals import overdispersed
from metvae_cli.evaluation.sampler_diagnostics import ChainDiagnostics, Remaining, StepDiagnostics
from metvae_cli.evaluation.streams import stream, stream_seed
from metvae_cli.samplers.chain import Sampler

_REFERENCE_CHAINS = 20
# A latent space is not judged by fewer data.
_LEAST_DATA = 10
# Of q_0 and q_K, for their nearest neighbours.
_MOST_DRAWS = 4000
# Below it the encoder's scale, in that of the posterior, is called too narrow.
_NARROW = 0.75


def sampler(work: Workplace) -> Outcome:
    """Steps, long chains, and what separates q_0 and q_K from long reference chains."""
    trained = copy.deepcopy(work.run.sampler).to(work.frozen.dtype).requires_grad_(False)
    steps_outcome = _of_steps(work, trained) if trained.num_steps else Outcome({}, [])
    chains_outcome = _of_chains(work, trained) if can_run_long(trained) else Outcome({}, [])
    reference_outcome = _of_reference(work, trained)
    parts = (steps_outcome, chains_outcome, reference_outcome)
    return Outcome(
        results={name: value for part in parts for name, value in part.results.items()},
        rows=[row for part in parts for row in part.rows],
        columns={name: value for part in parts for name, value in part.columns.items()},
        warnings=[warning for part in parts for warning in part.warnings],
        images=reference_outcome.images,
    )


def _of_steps(work: Workplace, trained: Sampler) -> Outcome:
    settings = work.request.sampler
    with _noise(work, "steps"):
        x = work.values(work.at_most(settings.data))
        found: StepDiagnostics = diagnostics.diagnose_steps(work.frozen.placed, trained, x, settings.num_chains)
    rows = [
        ("acceptance of each step", "  ".join(f"{value:.2f}" for value in listed(found.accept_prob))),
        ("energy error of each step, nats", "  ".join(f"{value:+.2f}" for value in listed(found.energy_error))),
    ]
    return Outcome({"steps": {name: listed(value) for name, value in found._asdict().items()}}, rows)


def _of_chains(work: Workplace, trained: Sampler) -> Outcome:
    settings = work.request.sampler
    index = work.at_most(settings.data)
    with (
        work.progress(f"long chains of {len(index)} data", settings.num_draws + settings.num_draws // 2) as report,
        _noise(work, "chains"),
    ):
        x = work.values(index)
        found = diagnostics.diagnose_chains(
            work.frozen.placed, trained, x, settings.num_chains, settings.num_draws, report
        )
    converged = (found.r_hat < settings.largest_r_hat).double().mean().item()  # NaN has not
    stuck = found.stuck.double().mean().item()
    results: dict[str, Any] = {
        "data": len(index),
        "num_chains": settings.num_chains,
        "num_draws": settings.num_draws,
        "r_hat_median": found.r_hat.nanmedian().item(),
        "r_hat_largest": _largest(found.r_hat),
        "effective_size_median": found.effective_size.nanmedian().item(),
        "effective_size_per_evaluation": found.effective_per_evaluation.nanmedian().item(),
        "share_converged": converged,
        "share_stuck": stuck,
        "is_adjusted": trained.is_adjusted,
    }
    draws = settings.num_chains * settings.num_draws
    typical = f"{results['r_hat_median']:.3f}, {results['effective_size_median']:.0f} of {draws}"
    rows = [
        (f"long chains: data whose R-hat is below {settings.largest_r_hat:g}", f"{100 * converged:.0f} %"),
        ("  R-hat and effective size of the median datum", typical),
        ("  data on which a chain is stuck", f"{100 * stuck:.0f} %"),
    ]
    columns = {
        "chain_r_hat": found.r_hat,
        "chain_effective_size": found.effective_size,
        "chain_accept_prob": found.accept_prob,
        "chain_stuck": found.stuck.double(),
    }
    return Outcome(
        {"chains": results},
        rows,
        {name: PerDatum(index, column) for name, column in columns.items()},
        warnings=_chain_warnings(found, settings.largest_r_hat),
    )


def _chain_warnings(found: ChainDiagnostics, limit: float) -> list[str]:
    warnings = []
    stuck, open_ended = int(found.stuck.sum()), int((~(found.r_hat < limit)).sum())
    if stuck:
        warnings.append(
            f"sampler: chains are stuck on {stuck} of {len(found.stuck)} data (they move in fewer than 1 % of their "
            "rounds): smaller steps, sampler.step_size_rule=adapted, or another sampler"
        )
    if open_ended > stuck:
        warnings.append(
            f"sampler: R-hat is not below {limit:g} for {open_ended} of {len(found.stuck)} data: the kernels mix "
            "slowly there (steps too short; under Barker an acceptance of 0.50 says so), or there are several modes"
        )
    return warnings


def _of_reference(work: Workplace, trained: Sampler) -> Outcome:
    """KL of q_0 and of q_K to the posterior, from a long reference chain; the densities where there are two latents."""
    settings, model = work.request.sampler, work.frozen
    index = work.at_most(settings.reference_data)
    rounds = math.ceil(settings.reference_draws / _REFERENCE_CHAINS)
    with work.progress(f"reference chains of {len(index)} data", 2 * rounds) as report, _noise(work, "reference"):
        x = work.values(index)
        reference = diagnostics.reference_draws(model.placed, x, _REFERENCE_CHAINS, rounds, report)
        start, end = diagnostics.trained_draws(
            model.placed, trained, x, min(_MOST_DRAWS, settings.reference_draws), work.request.importance.chunk
        )
        found: Remaining = diagnostics.compare_with_reference(start, end, reference)
        images = {}
        if start.shape[-1] == 2:
            images["posteriors"] = posterior_densities(model.placed, x, start, end, reference.draws)
    kl = _kl_by_importance(work, index, x)
    results: dict[str, Any] = {
        "data": index.tolist(),
        "num_draws": settings.reference_draws,
        "r_hat": listed(reference.r_hat),
        **{name: listed(value) for name, value in found._asdict().items()},
        "kl_start_by_importance": listed(kl),
    }
    known = f"{found.kl_start.nanmean():.3f} ({kl.mean():.3f} by importance sampling)"
    rows = [("KL to the posterior, nats: q_0", known)]
    if trained.num_steps:
        rows.append(("  q_K, end of the chain", f"{found.kl_end.nanmean():.3f}"))
    rows.append(("scale of q_0 in that of the posterior", f"{found.scale_start.log().mean().exp():.2f}"))
    return Outcome({"reference": results}, rows, warnings=_reference_warnings(found, reference.r_hat), images=images)


def _kl_by_importance(work: Workplace, index: Tensor, x: Tensor) -> Tensor:
    """KL(q_0 || p) = log p(x) - E_q[log p(x, z) - log q(z | x)], (B,), which needs no reference.

    From below, as is log p(x), which is estimated with the encoder spread out: safer where it is too narrow.
    """
    model, settings = work.frozen, work.request.importance
    wide = ProposalWeights(model, overdispersed(model.host.posterior, settings.widen), settings.chunk)
    data = [(index, x.cpu())]
    estimate = importance_sampling(
        model,
        data,
        settings.num_samples,
        weigh=wide,
        seed=work.request.general.seed,
        purpose="kl",
        chunk=settings.chunk,
        between=lambda done: work.check(),
    )
    with _noise(work, "kl"):
        elbo = diagnostics.elbo(model.placed, x, work.request.sampler.reference_draws, settings.chunk)
    return estimate.per_datum - elbo.double().cpu()


def _reference_warnings(found: Remaining, r_hat: Tensor) -> list[str]:
    warnings = []
    if not (r_hat < 1.05).all():
        warnings.append(
            f"sampler: a reference chain has not converged (R-hat {_largest(r_hat):.2f}): its KLs are not to be "
            "trusted; raise sampler.reference_draws"
        )
    narrow = found.scale_start.log().mean().exp().item()
    if narrow < _NARROW:
        warnings.append(
            f"encoder: its scale is {narrow:.2f} of the posterior's (under-dispersed): importance sampling from it is "
            "not to be trusted; try importance.proposal=overdispersed or retrained"
        )
    return warnings


def latent(work: Workplace) -> Outcome | None:
    """Active units, linear probe, distance of the aggregate posterior to the prior; None of too few data."""
    settings, model, seed = work.request.latent, work.frozen, work.request.general.seed
    index = work.at_most(settings.data)
    if len(index) < _LEAST_DATA:
        return None
    encoded = encode(model, work.values(index).cpu(), seed)
    active, distance = active_units(encoded), distance_to_prior(model, encoded, seed)
    results: dict[str, Any] = {
        "data": len(index),
        "active_units": int(active.sum()),
        "latent_dim": len(active),
        **distance._asdict(),
        **_probe(work, index, encoded),
    }
    apart = f"{distance.energy:.4f} (prior to itself {distance.energy_of_prior:.4f})"
    rows = [
        ("active units", f"{results['active_units']} of {len(active)}"),
        ("energy distance of the aggregate posterior to the prior", apart),
    ]
    if "accuracy" in results:
        chance = f"{results['majority']:.3f} by the largest class"
        rows.append(("linear probe, accuracy", f"{results['accuracy']:.3f} ± {results['accuracy_se']:.3f} ({chance})"))
    return Outcome(results, rows)


def _probe(work: Workplace, index: Tensor, encoded: Encoded) -> dict[str, float]:
    """Accuracy of the linear rule; nothing where there are no labels."""
    train, labels = settled(work.run.dataset), work.split.labels
    if train.labels is None or labels is None:
        return {}
    at = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: work.request.latent.probe_data]
    x = work.run.dataset.held_out(train, at.to(train.values.device)).cpu()
    fitted = encode(work.frozen, x, work.request.general.seed).mean
    train_labels, test_labels = train.labels.cpu()[at], labels.cpu()[index]
    if len(train_labels.unique()) < 2:
        return {}
    return linear_probe(fitted, train_labels, encoded.mean, test_labels)._asdict()


@contextmanager
def _noise(work: Workplace, purpose: str) -> Iterator[None]:
    """A random stream of its own, on the CPU and, where there is one, on the device; outside nothing changes."""
    name, device = ("diagnostics", purpose, work.request.general.seed), work.frozen.device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), stream(*name, dtype=torch.get_default_dtype()):
        if devices:
            torch.cuda.manual_seed_all(stream_seed(*name))
        yield


def _largest(values: Tensor) -> float:
    finite = values[~values.isnan()]
    return finite.max().item() if len(finite) else math.nan
