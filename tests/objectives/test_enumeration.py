"""The bound and the gradient of every parameter against exact enumeration of the 2^K decisions (oracle.py).

The package's chain is run once for every pair of (starting node, history of decisions) of two chains, with the
decisions imposed and the noise fixed; the results are weighed by the probabilities that the oracle gives. No sampling
error is left.
"""

import itertools

import pytest
import torch
from torch import Tensor

from metvae_cli.objectives import functionals
from metvae_cli.objectives.weights import log_weights
from metvae_cli.samplers.enumeration import enumerate_decisions
from tests.objectives.imposed import (
    NODES,
    NOISE,
    STEPS,
    exact,
    impose_noise,
    make_path,
    make_sampler,
    package_estimate,
    parameters,
    second,
)
from tests.objectives.oracle import Likelihood, Problem, ProposalName, ReverseName
from tests.thinned import thinned

pytestmark = pytest.mark.usefixtures("double")

EXACT = 1e-9
REJECTED = 1e-4  # of wrong estimators: five orders of magnitude above what a right one is allowed
FLOWS: tuple[ProposalName, ...] = ("flow_coin", "flow_lifted")


def problems(
    num_steps: tuple[int, ...] = (1, 2, 3),
    reverses: tuple[ReverseName, ...] = ("uniform",),
    likelihoods: tuple[Likelihood, ...] = ("gaussian", "bernoulli"),
) -> list[Problem]:
    found = []
    for reverse, proposal, barker, likelihood, bookkeeping, steps in itertools.product(
        reverses, (*STEPS, *FLOWS), (True, False), likelihoods, ("path", "reversal"), num_steps
    ):
        if bookkeeping == "reversal" and (proposal == "partial_fixed" or reverse != "uniform"):
            continue  # decisions cannot be summed out for one value of the noise, nor looked back on
        betas = [1.0] * steps if bookkeeping == "path" else [(k + 1) / (steps + 1) for k in range(steps)]
        found.append(Problem(likelihood, proposal, barker, bookkeeping, tuple(betas), NOISE[0][:steps], reverse))
    return found


QUICK = [*problems(), *problems((1, 2), ("learned", "exact"), ("gaussian",))]
REST = [one for one in problems(reverses=("learned", "exact")) if one not in QUICK]


def name_of(problem: Problem) -> str:
    rule = "barker" if problem.barker else "metropolis"
    kind = problem.bookkeeping if problem.bookkeeping == "reversal" else problem.reverse
    return f"{kind}-{problem.proposal}-{rule}-{problem.likelihood}-K{len(problem.betas)}"


def deviation(found: list[Tensor], expected: list[Tensor]) -> float:
    # Not Python's max, which takes any number for larger than NaN.
    return float(torch.stack([(a - b).abs().max() for a, b in zip(found, expected, strict=True)]).max())


def test_the_judge_sees_what_is_no_number() -> None:
    zero = torch.zeros(())
    assert not deviation([zero, zero * torch.nan, zero], [zero] * 3) < EXACT


def check(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    p = parameters(problem)
    for functional in (functionals.mean, functionals.log_mean_exp):
        value, gradient = package_estimate(problem, p, functional, monkeypatch)
        expected_value, expected_gradient = exact(problem, p, functional)
        assert abs(value - expected_value) < 1e-10
        assert deviation(gradient, expected_gradient) < EXACT


@pytest.mark.parametrize("problem", QUICK, ids=name_of)
def test_bound_and_gradient_are_exact(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    check(problem, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("problem", REST, ids=name_of)
def test_bound_and_gradient_are_exact_for_every_reverse(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    check(problem, monkeypatch)


ALL_REVERSES: tuple[ReverseName, ...] = ("uniform", "learned", "exact")
TWO_STEPS = problems((2,), ALL_REVERSES, ("gaussian",))


@pytest.mark.parametrize("problem", TWO_STEPS, ids=name_of)
def test_enumerated_decisions_are_exact_without_a_score_term(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chains from one node each; the bound of both, and of their weights averaged over histories."""
    p = parameters(problem)
    sampler = make_sampler(problem, p)
    z_0 = p.mean + p.log_scale.exp() * NODES[:2]
    impose_noise(problem, monkeypatch)
    path = make_path(problem, p, sampler)
    histories = enumerate_decisions(sampler, z_0[:, None, None], path, create_graph=True)
    weights, _ = log_weights(histories.trajectory, problem.bookkeeping, sampler, path)
    assert path.evaluations == 2 * sampler_cost(problem)
    ours = {"mean": histories.expectation(weights).mean(), "log": histories.log_expectation(weights).logsumexp(0).sum()}
    chains = [one.paths(z_0[[k]], p) for k, one in enumerate((problem, second(problem)))]
    means = [sum((prob * log_w for _, prob, log_w in chain), torch.zeros(1)) for chain in chains]
    logs = [
        torch.stack([torch.where(prob > 0, prob, 1e-300).log() + log_w for _, prob, log_w in chain]).logsumexp(0)
        for chain in chains
    ]
    theirs = {"mean": torch.cat(means).mean(), "log": torch.cat(logs).logsumexp(0)}
    for name, found in ours.items():
        gradient = torch.autograd.grad(found, p.all(), retain_graph=True, materialize_grads=True)
        expected = torch.autograd.grad(theirs[name], p.all(), retain_graph=True, materialize_grads=True)
        assert abs(found - theirs[name]) < 1e-10
        assert deviation(list(gradient), list(expected)) < EXACT


def sampler_cost(problem: Problem) -> int:
    """Evaluations per chain of enumerated decisions: 2^K - 1 moves and z_0, and as many looking back from each end."""
    each = {"hmc_3": 3, "partial_averaged": 2, "partial_fixed": 2}.get(problem.proposal, 1)
    moves = each * (2 ** len(problem.betas) - 1)
    return 1 + moves + (2 ** len(problem.betas) * moves if problem.reverse == "exact" else 0)


@pytest.mark.parametrize("problem", problems((2,)), ids=name_of)
def test_a_gradient_without_the_score_term_is_rejected(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    p = parameters(problem)
    _, gradient = package_estimate(problem, p, functionals.mean, monkeypatch, with_score=False)
    assert deviation(gradient, exact(problem, p, functionals.mean)[1]) > REJECTED


@pytest.mark.parametrize(
    "problem", [one for one in problems((2,)) if one.proposal not in ("random_walk", *FLOWS)], ids=name_of
)
def test_a_gradient_with_detached_forces_is_rejected(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    p = parameters(problem)
    value, gradient = package_estimate(problem, p, functionals.mean, monkeypatch, detach_forces=True)
    expected_value, expected_gradient = exact(problem, p, functionals.mean)
    assert abs(value - expected_value) < 1e-10  # the bound itself is the same; only its gradient is biased
    assert deviation(gradient, expected_gradient) > REJECTED


@pytest.mark.parametrize("problem", thinned(problems((2,)), 3), ids=name_of)
def test_the_oracle_agrees_with_finite_differences(problem: Problem) -> None:
    p = parameters(problem)
    _, gradient = exact(problem, p, functionals.mean)
    step = 3e-6
    for parameter, derivative in zip(p.all(), gradient, strict=True):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step
            values.append(exact(problem, p, functionals.mean)[0])
            with torch.no_grad():
                parameter -= sign * step
        assert abs((values[0] - values[1]) / (2 * step) - derivative) < 1e-7


def test_the_histories_of_a_start_have_probability_one() -> None:
    for problem in problems():
        p = parameters(problem)
        total = sum(probability for _, probability, _ in problem.paths(p.mean + NODES, p))
        assert torch.allclose(torch.as_tensor(total), torch.ones(len(NODES)), atol=1e-12)
