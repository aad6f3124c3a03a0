"""Diagnostics of chains and of importance weights, against ArviZ on stored chains and against known laws."""

import math

import numpy as np
import pytest
import torch
from arviz_stats.base.array import array_stats
from scipy import signal

from metvae_cli.evaluation.convergence import effective_size, pareto_k, r_hat


def autoregressive(coefficient: float, chains: int = 4, draws: int = 20_000) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=(chains, draws + 500))
    return torch.from_numpy(np.asarray(signal.lfilter([1.0], [1.0, -coefficient], noise))[:, 500:].copy())


def test_the_effective_size_of_an_autoregression_is_the_known_one() -> None:
    draws = autoregressive(0.8)
    expected = draws.numel() * (1 - 0.8) / (1 + 0.8)
    assert effective_size(draws).item() == pytest.approx(expected, rel=0.1)
    assert r_hat(draws).item() < 1.01


def test_coordinates_are_those_of_arviz() -> None:
    draws = torch.stack([autoregressive(c, draws=500) for c in (0.0, 0.5, 0.95)], -1)
    chains = draws.numpy()
    for column in range(3):
        series = chains[:, :, column]
        assert r_hat(draws)[column].item() == pytest.approx(np.asarray(array_stats.rhat(series)).item(), abs=1e-12)
        assert effective_size(draws)[column].item() == pytest.approx(
            np.asarray(array_stats.ess(series)).item(), rel=1e-12
        )


def test_data_and_coordinates_keep_their_places() -> None:
    draws = torch.randn(4, 100, 3, 2, generator=torch.Generator().manual_seed(0))
    assert r_hat(draws).shape == (3, 2)
    assert r_hat(draws)[2, 1] == r_hat(draws[:, :, 2, 1])


@pytest.mark.parametrize("bad", ["constant", "nan", "infinite", "one_chain", "few_draws"])
def test_what_cannot_be_trusted_is_not_a_number(bad: str) -> None:
    draws = torch.randn(4, 100, 2, generator=torch.Generator().manual_seed(0))
    if bad == "constant":
        draws[1, :, 0] = 3.0
    elif bad in ("nan", "infinite"):
        draws[1, 7, 0] = math.nan if bad == "nan" else math.inf
    elif bad == "one_chain":
        draws = draws[:1]
    else:
        draws = draws[:, :3]
    assert math.isnan(r_hat(draws)[0])
    if bad not in ("one_chain", "few_draws"):
        assert math.isnan(effective_size(draws)[0])
        assert r_hat(draws)[1] < 1.1


def test_chains_in_different_places_have_not_converged() -> None:
    draws = autoregressive(0.0) + 3 * torch.tensor([0.0, 0.0, 0.0, 1.0])[:, None]
    assert r_hat(draws).item() > 1.1


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.8])
def test_the_tail_of_pareto_weights_has_their_shape(shape: float) -> None:
    """w = U^-k has a Pareto tail of shape k."""
    uniforms = torch.rand(100_000, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert pareto_k(-shape * uniforms.log()).mean().item() == pytest.approx(shape, abs=0.06)


def test_weights_of_zero_leave_the_tail_as_it_is() -> None:
    log_weights = torch.randn(5000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with_zero = torch.cat([log_weights, torch.full((1, 1), -math.inf)])
    assert pareto_k(with_zero).item() == pytest.approx(pareto_k(log_weights).item(), abs=0.05)


def test_equal_weights_have_no_tail_and_few_ones_tell_nothing() -> None:
    assert pareto_k(torch.zeros(1000, 1)).item() == -math.inf
    assert math.isnan(pareto_k(torch.randn(10, 1)).item())
    assert math.isnan(pareto_k(torch.full((100, 1), math.nan)).item())
