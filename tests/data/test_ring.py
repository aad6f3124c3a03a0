"""The ring: its exact log-likelihood against brute force, a closed form and its integral; its moments and its seed."""

import math
from typing import Any

import pytest
import torch

from metvae_cli.data.ring import Ring, RingProcess

TWO_PI = 2 * math.pi


@pytest.mark.parametrize(("d", "noise"), [(1, 1.0), (2, 1.0), (3, 0.01), (10, 1.0), (2, 100.0), (64, 0.001)])
def test_the_exact_density_integrates_to_one(d: int, noise: float) -> None:
    process = RingProcess(d, TWO_PI, 2.0, noise)
    low, high = 2 * TWO_PI - 10 * noise, TWO_PI * (math.sqrt(d) + 8 + 2) + 10 * noise
    x = torch.linspace(low, high, 40_001)
    density = torch.cat([process.log_prob(part[:, None]) for part in x.split(5000)]).double().exp()
    assert torch.trapezoid(density, x.double()).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_exact_density_is_the_mean_over_latents(d: int) -> None:
    # By the definition, p(x) = E_z N(x; alpha (|z| + beta), noise^2), with draws of z itself: no chi density.
    process = RingProcess(d, TWO_PI, 2.0, 1.0)
    x = torch.tensor([[13.0], [16.0], [20.0], [28.0]])
    norm = torch.randn(400_000, d, dtype=torch.float64).norm(dim=1)
    terms = (-0.5 * (x.double() - TWO_PI * (norm + 2)) ** 2).exp() / math.sqrt(TWO_PI)
    error = terms.std(1) / math.sqrt(terms.shape[1])
    assert ((process.log_prob(x).double().exp() - terms.mean(1)).abs() < 4 * error).all()


def test_one_dimension_has_a_closed_form() -> None:
    # |z| is half-normal: the sum of it and a Gaussian has a density of Gaussian times Gaussian tail.
    alpha, beta, noise = 1.5, 0.5, 0.7
    x = torch.linspace(-20, 20, 41, dtype=torch.float64)
    variance = alpha**2 + noise**2
    y = x - alpha * beta
    log_tail = torch.special.log_ndtr(y * alpha / (noise * math.sqrt(variance)))
    expected = math.log(2) - 0.5 * y**2 / variance - 0.5 * math.log(TWO_PI * variance) + log_tail
    exact = RingProcess(1, alpha, beta, noise).log_prob(x.float()[:, None])
    assert (exact.shape, exact.dtype) == ((41,), torch.float32)
    torch.testing.assert_close(exact.double(), expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("d", [1, 2, 100])
def test_far_from_the_ring_the_log_likelihood_is_finite(d: int) -> None:
    x = torch.tensor([[-1e4], [-10.0], [0.0], [4 * math.pi], [1e4]])
    assert RingProcess(d, TWO_PI, 2.0, 1e-3).log_prob(x).isfinite().all()


def test_data_have_the_moments_of_the_process() -> None:
    # |z| for d = 2 is Rayleigh: mean sqrt(pi / 2), variance 2 - pi / 2.
    x = RingProcess(2, TWO_PI, 2.0, 1.0).sample(100_000, torch.Generator().manual_seed(0)).double()
    assert x.mean().item() == pytest.approx(TWO_PI * (math.sqrt(math.pi / 2) + 2), abs=0.07)
    assert x.var().item() == pytest.approx(TWO_PI**2 * (2 - math.pi / 2) + 1, rel=0.03)


def test_sizes_shapes_and_seeds() -> None:
    first = Ring(num_train=7, num_valid=5, num_test=3).load()
    torch.manual_seed(7)
    longer, other = Ring(num_train=9, num_valid=5, num_test=3).load(), Ring(num_test=3, split_seed=1).load()
    assert (len(first.train), len(first.valid), len(first.test)) == (7, 5, 3)
    assert (first.event_shape, first.support, first.train.labels) == ((1,), "real", None)
    assert first.train.values.dtype == torch.float32
    assert torch.equal(first.test.values, longer.test.values)
    assert torch.equal(first.valid.values, longer.valid.values)
    assert not torch.equal(first.test.values, other.test.values)


def test_loaded_log_likelihood_belongs_to_the_loaded_data() -> None:
    dataset = Ring(num_test=5000).load()
    other = Ring(num_test=5000, alpha=7.0).load()
    assert dataset.exact_log_likelihood is not None
    assert other.exact_log_likelihood is not None
    test = dataset.test.values
    assert dataset.exact_log_likelihood(test).mean() > other.exact_log_likelihood(test).mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^batch_size=0: must be at least 1$"),
        ({"true_latent_dim": 0}, r"^true_latent_dim=0: must be at least 1$"),
        ({"num_test": 0}, r"^num_test=0: must be at least 1$"),
        ({"split_seed": -3}, r"^split_seed=-3: must be at least 0$"),
        ({"alpha": 0.0}, r"^alpha=0\.0: must be positive and finite$"),
        ({"beta": -1.0}, r"^beta=-1\.0: must be finite and at least 0$"),
        ({"beta": math.nan}, r"^beta=nan: must be finite"),
        ({"noise": 0.0}, r"^noise=0\.0: must be finite and at least 0\.001$"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ring(**arguments)
