"""The exact likelihood of a model, where it has one: in closed form, or by quadrature over one or two coordinates."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal

from metvae_cli.evaluation.streams import stream
from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.likelihoods import GaussianLikelihood
from metvae_cli.models.priors import StandardNormal
from metvae_cli.models.vae import VAE

_MOST_DIMENSIONS = 2
# Numbers held at a time by the largest intermediate, latents x data x values.
_CELLS = 20_000_000


class ExactLikelihood(NamedTuple):
    """log p(x) in nats, (N,).

    error: (N,), of the rule on its grid; 0 in closed form
    method: how it was found
    prior_mass: how much of the prior the grid holds; what it leaves out is in no error
    """

    per_datum: Tensor
    error: Tensor
    method: str
    prior_mass: float = 1.0


def has_exact_likelihood(model: VAE) -> bool:
    """Whether `exact_likelihood` can be had."""
    return _is_linear_gaussian(model) or _latent_dim(model) <= _MOST_DIMENSIONS


@torch.no_grad()
def exact_likelihood(
    model: VAE,
    data: Iterable[tuple[Tensor, Tensor]],
    points: int = 501,
    between: Callable[[float], None] = lambda done: None,
) -> ExactLikelihood:
    """log p(x) of every datum.

    A linear decoder with a Gaussian likelihood of one scale and a standard normal prior make a Gaussian,
    N(b, W W^T + s^2 I). Otherwise p(x) is the integral of p(x, z) by the trapezoid rule on a grid over what ten
    thousand draws of the prior span, and as much again; the error is the change from the grid with every other point,
    far more than what the rule leaves.

    Args:
        model: on the CPU, in double precision
        data: numbers (B,) and values (B, *event)
        points: of the grid, per coordinate; odd
        between: called with the share of the grid that is done

    Raises:
        ValueError: the model has none
    """
    x = torch.cat([rows for _, rows in data]).double()
    if _is_linear_gaussian(model):
        found = _closed_form(model, x)
        return ExactLikelihood(found, torch.zeros_like(found), "closed form")
    if _latent_dim(model) > _MOST_DIMENSIONS:
        raise ValueError("no exact likelihood: the model is not linear and has more than two latent coordinates")
    fine, coarse, prior = _quadrature(model, x, points + 1 - points % 2, between)
    return ExactLikelihood(fine, (fine - coarse).abs(), "quadrature", prior.exp().item())


def _is_linear_gaussian(model: VAE) -> bool:
    likelihood, decoder = model.likelihood, model.decoder
    return (
        isinstance(decoder, MLPDecoder)
        and isinstance(likelihood, GaussianLikelihood)
        and not likelihood.predict_scale
        and isinstance(model.prior, StandardNormal)
        and len(decoder.net) == 1
    )


def _latent_dim(model: VAE) -> int:
    return _prior_draws(model, 1).shape[1]


def _prior_draws(model: VAE, count: int) -> Tensor:
    with stream("axes", dtype=torch.float64):
        return model.prior.sample(count, torch.device("cpu")).double()


def _closed_form(model: VAE, x: Tensor) -> Tensor:
    assert isinstance(model.decoder, MLPDecoder)
    assert isinstance(model.likelihood, GaussianLikelihood)
    layer = model.decoder.net[0]
    assert isinstance(layer, nn.Linear)
    variance = (2 * model.likelihood.log_scale).exp().double() * torch.ones_like(layer.bias).double()
    gaussian = LowRankMultivariateNormal(layer.bias.double(), layer.weight.double(), variance)
    return gaussian.log_prob(x.flatten(1))


def _quadrature(model: VAE, x: Tensor, points: int, between: Callable[[float], None]) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x), (N,), on the grid and on every other of its points; log of the prior's mass on the grid, ()."""
    axes = _axes(model, points)
    size = points ** len(axes)
    cell = math.log(math.prod((axis[1] - axis[0]).item() for axis in axes))
    log_prior = model.prior.density()
    at_a_time = max(1, _CELLS // (len(x) * math.prod(x.shape[1:])))
    fine = coarse = x.new_full((len(x),), -math.inf)
    mass = x.new_tensor(-math.inf)
    for start in range(0, size, at_a_time):
        between(start / size)
        cells = torch.arange(start, min(start + at_a_time, size))
        numbers = torch.unravel_index(cells, (points,) * len(axes))
        z = torch.stack([axis[number] for axis, number in zip(axes, numbers, strict=True)], 1)[:, None]
        shared = torch.stack([number % 2 == 0 for number in numbers]).all(0)
        parameters = model.decoder(z[..., : model.prior.visible_dim])
        prior = log_prior(z)
        each = torch.cat([model.likelihood.log_prob(parameters, row) for row in x.split(1)], 1) + prior
        mass = torch.logaddexp(mass, prior.logsumexp((0, 1)))
        fine = torch.logaddexp(fine, each.logsumexp(0))
        if shared.any():
            coarse = torch.logaddexp(coarse, each[shared].logsumexp(0))
    between(1.0)
    return fine + cell, coarse + cell + len(axes) * math.log(2), mass + cell


def _axes(model: VAE, points: int) -> list[Tensor]:
    """Coordinates that hold the prior: twice what ten thousand of its draws span, more than seven deviations."""
    drawn = _prior_draws(model, 10_000)
    low, high = drawn.min(0).values, drawn.max(0).values
    margin = (high - low) / 2
    return [
        torch.linspace(a.item(), b.item(), points, dtype=torch.float64)
        for a, b in zip(low - margin, high + margin, strict=True)
    ]
