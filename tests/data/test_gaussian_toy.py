"""The linear-Gaussian toy: its exact log-likelihood against quadrature over z, its moments and its seed."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from metvae_cli.data.gaussian_toy import GaussianToy, LinearGaussian


def log_likelihood_by_quadrature(model: LinearGaussian, x: Tensor) -> Tensor:
    """Log of the integral over a scalar z of N(z; 0, 1) prod_i N(x_i; w_i z + b_i, noise^2), (B,) float64."""
    z = torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    log_joint = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    log_joint = log_joint.expand(len(x), -1).clone()
    for i in range(x.shape[1]):
        residual = (x[:, i, None].double() - model.weights[i, 0] * z - model.offset[i]) / model.noise
        log_joint += -0.5 * residual**2 - math.log(model.noise) - 0.5 * math.log(2 * math.pi)
    return log_joint.logsumexp(1) + math.log(24 / 48_000)


def test_exact_log_likelihood_is_the_integral_over_z() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([[1.5], [-0.7], [0.2]], dtype=torch.float64)
    model = LinearGaussian(weights, torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), noise=0.4)
    x = model.sample(20, generator)
    exact = model.log_prob(x)
    assert (exact.shape, exact.dtype) == ((20,), torch.float32)
    torch.testing.assert_close(exact.double(), log_likelihood_by_quadrature(model, x), rtol=1e-6, atol=1e-5)


def test_data_have_the_moments_of_the_model() -> None:
    weights = torch.tensor([[1.5, 0.0], [-0.7, 1.0]], dtype=torch.float64)
    offset = torch.tensor([0.3, -1.0], dtype=torch.float64)
    count = 100_000
    x = LinearGaussian(weights, offset, noise=0.5).sample(count, torch.Generator().manual_seed(1)).double()
    # By hand: 1.5^2 + 0.25, 1.5 * -0.7, 0.7^2 + 1 + 0.25. The largest standard error is about 0.011.
    covariance = torch.tensor([[2.5, -1.05], [-1.05, 1.74]], dtype=torch.float64)
    torch.testing.assert_close(x.mean(0), offset, rtol=0, atol=0.025)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=0.055)


def test_loaded_log_likelihood_belongs_to_the_loaded_data() -> None:
    # Under its own process log p(x) is a constant minus half a chi-square with D = 5 degrees of freedom, so
    # its variance is D / 2; data of another seed are less likely.
    dataset = GaussianToy(num_test=5000).load()
    other = GaussianToy(num_test=5000, split_seed=1).load()
    assert dataset.exact_log_likelihood is not None
    own, foreign = (
        dataset.exact_log_likelihood(dataset.test.values),
        dataset.exact_log_likelihood(other.test.values),
    )
    assert own.var().item() == pytest.approx(5 / 2, rel=0.15)
    assert own.mean() > foreign.mean() + 1


def test_sizes_shapes_and_types() -> None:
    dataset = GaussianToy(observed_dim=4, num_train=7, num_valid=5, num_test=3).load()
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (7, 5, 3)
    assert dataset.event_shape == (4,)
    assert (dataset.support, dataset.redraw) == ("real", False)
    for split in (dataset.train, dataset.valid, dataset.test):
        assert split.values.dtype == torch.float32
        assert split.labels is None


def test_splits_are_disjoint() -> None:
    dataset = GaussianToy().load()
    data = torch.cat([dataset.train.values, dataset.valid.values, dataset.test.values])
    assert len(data.unique(dim=0)) == 3000


def test_data_are_fixed_by_the_seed_and_held_out_data_by_their_own_sizes() -> None:
    first = GaussianToy().load()
    torch.manual_seed(7)
    again, shorter, other = (
        GaussianToy().load(),
        GaussianToy(num_train=10).load(),
        GaussianToy(split_seed=1).load(),
    )
    assert torch.equal(first.train.values, again.train.values)
    assert torch.equal(first.test.values, shorter.test.values)
    assert torch.equal(first.valid.values, shorter.valid.values)
    assert not torch.equal(first.test.values, other.test.values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^batch_size=0: must be at least 1$"),
        ({"observed_dim": 0}, r"^observed_dim=0: must be at least 1$"),
        ({"true_latent_dim": 0}, r"^true_latent_dim=0: must be at least 1$"),
        ({"num_train": 0}, r"^num_train=0: must be at least 1$"),
        ({"num_valid": 0}, r"^num_valid=0: must be at least 1$"),
        ({"num_test": 0}, r"^num_test=0: must be at least 1$"),
        ({"split_seed": -3}, r"^split_seed=-3: must be at least 0$"),
        ({"noise": 0.0}, r"^noise=0\.0: must be finite and at least 0\.001$"),
        ({"noise": math.nan}, r"^noise=nan: must be finite"),
        ({"noise": math.inf}, r"^noise=inf: must be finite"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianToy(**arguments)
