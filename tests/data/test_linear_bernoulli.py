"""The linear Bernoulli toy: its exact log-likelihood by other quadrature, by brute force and summed; its seed."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metvae_cli.data.linear_bernoulli import LinearBernoulli, LinearBernoulliToy


def make_model(dim: int, seed: int = 0) -> LinearBernoulli:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(dim, 2, dtype=torch.float64, generator=generator)
    return LinearBernoulli(weights, torch.randn(dim, dtype=torch.float64, generator=generator))


def log_given(model: LinearBernoulli, x: Tensor, z: Tensor) -> Tensor:
    """log p(x | z), (B, K), pixel by pixel as the sum of two cases."""
    logits = z @ model.weights.T + model.offset
    return x.double() @ logsigmoid(logits).T + (1 - x.double()) @ logsigmoid(-logits).T


def test_all_probabilities_sum_to_one() -> None:
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=10)))
    exact = make_model(10).log_prob(x)
    assert (exact.shape, exact.dtype) == ((1024,), torch.float32)
    assert exact.double().exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dim", [1, 10, 20])
def test_exact_log_likelihood_is_the_integral_over_z(dim: int, seed: int) -> None:
    # The sum over all x is one whatever the nodes are; a fine grid is a test of the integral itself.
    model = make_model(dim, seed)
    x = model.sample(20, torch.Generator().manual_seed(1)).float() / 255
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_prior = -0.5 * z.square().sum(1) - math.log(2 * math.pi) + 2 * math.log(18 / 360)
    expected = (log_given(model, x, z) + log_prior).logsumexp(1)
    torch.testing.assert_close(model.log_prob(x).double(), expected, rtol=0, atol=5e-6)


def test_exact_log_likelihood_agrees_with_draws_of_z() -> None:
    model = make_model(10)
    x = model.sample(10, torch.Generator().manual_seed(2)).float() / 255
    terms = log_given(model, x, torch.randn(200_000, 2, dtype=torch.float64)).exp()
    error = terms.std(1) / math.sqrt(terms.shape[1])
    assert ((model.log_prob(x).double().exp() - terms.mean(1)).abs() < 4 * error).all()


def test_data_have_the_frequencies_of_the_model() -> None:
    model = make_model(3)
    count = 100_000
    x = model.sample(count, torch.Generator().manual_seed(3)).float() / 255
    codes = (x @ torch.tensor([4.0, 2.0, 1.0])).long().bincount(minlength=8)
    exact = model.log_prob(torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))).exp()
    assert ((codes / count - exact).abs() < 4 * (exact * (1 - exact) / count).sqrt()).all()


def test_repeated_data_keep_their_order() -> None:
    model = make_model(4)
    x = model.sample(50, torch.Generator().manual_seed(4)).float() / 255
    one_by_one = torch.cat([model.log_prob(row[None]) for row in x])
    torch.testing.assert_close(model.log_prob(x), one_by_one)


def test_sizes_shapes_and_seeds() -> None:
    first = LinearBernoulliToy(num_train=7, num_valid=5, num_test=3).load()
    torch.manual_seed(7)
    longer = LinearBernoulliToy(num_train=9, num_valid=5, num_test=3).load()
    assert (len(first.train), len(first.valid), len(first.test)) == (7, 5, 3)
    assert (first.event_shape, first.support, first.train.labels) == ((10,), "binary", None)
    assert first.train.values.dtype == torch.uint8
    assert set(first.batch(torch.arange(7)).unique().tolist()) == {0.0, 1.0}
    assert torch.equal(first.test.values, longer.test.values)
    assert not torch.equal(longer.train.values, LinearBernoulliToy(num_train=9, split_seed=1).load().train.values)


def test_the_loaded_log_likelihood_is_near_the_entropy_of_the_data() -> None:
    dataset = LinearBernoulliToy(num_train=10).load()
    assert dataset.exact_log_likelihood is not None
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=10)))
    log_p = dataset.exact_log_likelihood(every)
    found = dataset.exact_log_likelihood(dataset.held_out(dataset.test, torch.arange(5000)))
    assert found.mean().item() == pytest.approx((log_p.exp() * log_p).sum().item(), abs=0.12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^batch_size=0: must be at least 1$"),
        ({"observed_dim": 0}, r"^observed_dim=0: must be at least 1$"),
        ({"observed_dim": 21}, r"^observed_dim=21: must be at most 20$"),
        ({"num_train": 0}, r"^num_train=0: must be at least 1$"),
        ({"split_seed": -3}, r"^split_seed=-3: must be at least 0$"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearBernoulliToy(**arguments)
