"""Log-likelihoods by annealing: a lower bound for any data (AIS), both bounds for data of the model's own (BDMC)."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath
from metvae_cli.evaluation.annealing import PILOT_TEMPERATURES, AnnealingSettings, anneal, log_mean, pilot
from metvae_cli.evaluation.frozen import FrozenModel
from metvae_cli.evaluation.streams import DatumStreams, stream

Between = Callable[[float], None]


class AnnealedEstimate(NamedTuple):
    """per_datum: (N,) nats. effective_chains: (N,), of the S weights. accept_prob: mean over all steps."""

    per_datum: Tensor
    effective_chains: Tensor
    accept_prob: float


class Simulated(NamedTuple):
    """Data of the model's own. z: (N, D), exact draws of p(z | x). x: (N, *event). Both on the CPU."""

    z: Tensor
    x: Tensor


@torch.no_grad()
def annealed_importance_sampling(
    model: FrozenModel,
    data: Iterable[tuple[Tensor, Tensor]],
    settings: AnnealingSettings,
    seed: int = 0,
    repeat: int = 0,
    between: Between = lambda done: None,
) -> AnnealedEstimate:
    """A stochastic lower bound on log p(x) of every datum, which holds whatever the encoder is.

    Args:
        model: gives the path's ends
        data: numbers (B,) and values (B, *event)
        settings: see there
        seed, repeat: name the random streams, with the number of each datum
        between: called with the number of data done, a fraction while a group is annealed
    """
    parts, done = [], 0
    for index, x in _groups(data, settings):
        name = ("ais", seed, repeat)
        path = _path(model, x, settings)
        start, other = (_starts(model, x, index, settings, (*name, run)) for run in ("main", "pilot"))
        tuned = pilot(
            path,
            other,
            settings,
            _streams(model, (*name, "tune"), index),
            _progress(between, done, index, settings, 0, 2),
        )
        streams = _streams(model, (*name, "anneal"), index)
        annealed = anneal(path, start, tuned, settings, streams, _progress(between, done, index, settings, 1, 2))
        parts.append(_estimate(annealed.log_weights, annealed.accept_prob))
        done += len(index)
    between(done)
    return _joined(parts)


@torch.no_grad()
def simulate(
    model: FrozenModel, count: int, seed: int, between: Callable[[int], None] = lambda done: None
) -> Simulated:
    """z ~ p(z), x ~ p(x | z), (count, ...): z is then an exact draw of p(z | x). between: called with those done."""
    host, found = model.host, None
    for datum in range(count):
        between(datum)
        with stream("simulate", seed, datum, dtype=model.dtype):
            z = host.prior.sample(1, torch.device("cpu")).to(model.dtype)
            x = host.decode(z[None]).sample()[0].to(model.dtype)
        # Room for all at once: too many are told at the first one, and not when the memory is used up.
        found = found or Simulated(z.new_empty(count, *z.shape[1:]), x.new_empty(count, *x.shape[1:]))
        found.z[datum], found.x[datum] = z[0], x[0]
    assert found is not None
    return found


@torch.no_grad()
def bidirectional(
    model: FrozenModel,
    simulated: Simulated,
    settings: AnnealingSettings,
    seed: int = 0,
    repeat: int = 0,
    between: Between = lambda done: None,
) -> tuple[AnnealedEstimate, AnnealedEstimate]:
    """Bidirectional Monte Carlo (Grosse, Ghahramani and Adams 2015): lower and upper bounds on log p(x).

    The annealed chains run forwards from the path's start, and backwards from the exact draw of the posterior that
    simulated data come with: -log of the mean of the backward weights is at least log p(x) in expectation. The gap
    bounds the error of annealing on data like the model's own.
    """
    lower, upper, done = [], [], 0
    for index, x in _groups([(torch.arange(len(simulated.x)), simulated.x)], settings):
        name = ("bdmc", seed, repeat)
        path = _path(model, x, settings)
        start, other = (_starts(model, x, index, settings, (*name, run)) for run in ("main", "pilot"))
        tuned = pilot(
            path,
            other,
            settings,
            _streams(model, (*name, "tune"), index),
            _progress(between, done, index, settings, 0, 3),
        )
        end = simulated.z[index].to(start).expand(settings.num_chains, -1, -1)
        streams = [_streams(model, (*name, way), index) for way in ("forwards", "backwards")]
        shares = [_progress(between, done, index, settings, part, 3) for part in (1, 2)]
        forwards = anneal(path, start, tuned, settings, streams[0], shares[0])
        backwards = anneal(path, end, tuned, settings, streams[1], shares[1], backwards=True)
        lower.append(_estimate(forwards.log_weights, forwards.accept_prob))
        found = _estimate(backwards.log_weights, backwards.accept_prob)
        upper.append(found._replace(per_datum=-found.per_datum))
        done += len(index)
    between(done)
    return _joined(lower), _joined(upper)


def _groups(data: Iterable[tuple[Tensor, Tensor]], settings: AnnealingSettings) -> Iterable[tuple[Tensor, Tensor]]:
    """Data so many at a time that their chains are at most a chunk."""
    together = max(1, settings.chunk // settings.num_chains)
    for index, x in data:
        yield from zip(index.split(together), x.split(together), strict=True)


def _path(model: FrozenModel, x: Tensor, settings: AnnealingSettings) -> AnnealedPath:
    placed, at = model.placed, x.to(model.device, model.dtype)
    initial = placed.prior.density() if settings.start == "prior" else placed.posterior(at).log_prob
    return AnnealedPath(initial, placed.joint(at), needs_score=True)


def _starts(
    model: FrozenModel, x: Tensor, index: Tensor, settings: AnnealingSettings, name: tuple[int | str, ...]
) -> Tensor:
    """Draws of the path's start, (S, B, D), on the device; of each datum from a stream of its own."""
    host, drawn = model.host, []
    for datum, row in zip(index.tolist(), x.to(model.dtype).split(1), strict=True):
        with stream(*name, datum, dtype=model.dtype):
            if settings.start == "prior":
                drawn.append(host.prior.sample(settings.num_chains, torch.device("cpu"))[:, None])
            else:
                drawn.append(host.posterior(row).rsample((settings.num_chains,)))
    return torch.cat(drawn, 1).to(model.device, model.dtype)


def _streams(model: FrozenModel, name: tuple[int | str, ...], index: Tensor) -> DatumStreams:
    return DatumStreams(name, index, model.device, model.dtype)


def _estimate(log_weights: Tensor, accept_prob: float) -> AnnealedEstimate:
    effective = (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()
    return AnnealedEstimate(log_mean(log_weights).cpu(), effective.cpu(), accept_prob)


def _joined(parts: list[AnnealedEstimate]) -> AnnealedEstimate:
    sizes = torch.tensor([len(part.per_datum) for part in parts], dtype=torch.float64)
    acceptance = (torch.tensor([part.accept_prob for part in parts], dtype=torch.float64) * sizes).sum() / sizes.sum()
    values = torch.cat([part.per_datum for part in parts])
    return AnnealedEstimate(values, torch.cat([part.effective_chains for part in parts]), acceptance.item())


def _progress(
    between: Between, done: int, index: Tensor, settings: AnnealingSettings, run: int, runs: int
) -> Callable[[int], None]:
    """Reports the temperatures of one of a group's runs, the first of which is the pilot, as a part of its data."""
    total = settings.num_temperatures if run else PILOT_TEMPERATURES

    def report(temperature: int) -> None:
        between(done + len(index) * (run + temperature / total) / runs)

    return report
