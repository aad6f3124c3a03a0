"""Acceptance rules: detailed balance, exact complements, and gradients that stay finite."""

import math

import pytest
import torch

from metvae_cli.kernels.acceptance import Acceptance, decide, log1mexp, log_probabilities

pytestmark = pytest.mark.usefixtures("double")
RATIOS = torch.cat([torch.linspace(-50, 50, 1001), torch.tensor([-700.0, -1e-12, 0.0, 1e-12, 700.0])]).double()


@pytest.mark.parametrize("rule", Acceptance)
def test_detailed_balance(rule: Acceptance) -> None:
    """alpha(t) = e^t alpha(-t)."""
    forward, backward = log_probabilities(rule, RATIOS)[0], log_probabilities(rule, -RATIOS)[0]
    assert torch.allclose(forward, RATIOS + backward, atol=1e-12)


@pytest.mark.parametrize("rule", Acceptance)
def test_the_two_decisions_have_probability_one(rule: Acceptance) -> None:
    log_accept, log_reject = log_probabilities(rule, RATIOS)
    certain = log_accept == 0 if rule is Acceptance.METROPOLIS else torch.zeros_like(RATIOS, dtype=torch.bool)
    total = log_accept.exp() + log_reject.exp()
    assert torch.allclose(total[~certain], torch.ones(int((~certain).sum()), dtype=torch.float64), atol=1e-12)
    assert torch.isfinite(log_reject).all()


def test_the_rules_are_what_they_are_called() -> None:
    t = torch.tensor([-1.0, 0.5])
    assert torch.allclose(log_probabilities(Acceptance.METROPOLIS, t)[0].exp(), torch.tensor([math.exp(-1), 1.0]))
    assert torch.allclose(log_probabilities(Acceptance.BARKER, t)[0].exp(), t.exp() / (1 + t.exp()))


@pytest.mark.parametrize("rule", Acceptance)
def test_gradients_are_finite_and_those_of_the_formulas(rule: Acceptance) -> None:
    ratios = RATIOS[(RATIOS.abs() > 1e-9)].clone().requires_grad_()
    log_accept, log_reject = log_probabilities(rule, ratios)
    (of_accept,) = torch.autograd.grad(log_accept.sum(), ratios, retain_graph=True)
    (of_reject,) = torch.autograd.grad(log_reject.sum(), ratios)
    assert torch.isfinite(of_accept).all()
    assert torch.isfinite(of_reject).all()
    inside = ratios.detach().abs() < 20
    t = ratios.detach()[inside]
    if rule is Acceptance.BARKER:
        expected = (1 - torch.sigmoid(t), -torch.sigmoid(t))
    else:
        below = t < 0
        expected = (
            below.double(),
            torch.where(below, -t.exp() / -torch.expm1(t.clamp(max=-1e-300)), torch.zeros_like(t)),
        )
    assert torch.allclose(of_accept[inside], expected[0])
    assert torch.allclose(of_reject[inside], expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_draw_of_zero_accepts_no_hopeless_proposal(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform draws of torch may be 0, one in 2^24 of single precision."""
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    taken = decide(torch.tensor([-1000.0, -50.0, -1e-3, 0.0], dtype=dtype))
    assert taken.tolist() == [False, False, True, True]


def test_log1mexp_is_accurate_at_both_ends() -> None:
    x = -torch.tensor([1e-15, 1e-8, 0.1, 0.6931, 0.6932, 5.0, 40.0, 700.0])
    exact = torch.tensor([math.log(-math.expm1(v)) if v > -1 else math.log1p(-math.exp(v)) for v in x.tolist()])
    assert torch.allclose(log1mexp(x), exact, rtol=1e-13, atol=0)


def test_decisions_have_their_probability() -> None:
    for probability in (0.0, 0.2, 0.9, 1.0):
        accepted = decide(torch.full((100_000,), math.log(probability) if probability else -math.inf))
        error = 5 * math.sqrt(probability * (1 - probability) / 100_000)
        assert abs(accepted.double().mean() - probability) <= error
