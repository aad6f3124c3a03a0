"""Chains that stop where they are first rejected: all K + 1 stops against the independent account of oracle.py.

A chain that stops after k moves has decided k + 1 times, so its probability and weight are those of the oracle's
history (1, ..., 1, 0) of the first k + 1 steps alone, but for r, which is 1 / (K + 1) or a softmax over stops.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metvae_cli.build import build_experiment
from metvae_cli.objectives import weights as weights_module
from metvae_cli.objectives.weights import FunctionalName, WeightObjective, log_weights
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.enumeration import Histories, enumerate_stops, histories_of
from metvae_cli.samplers.reverse import LearnedStops, Reverse, Uniform, UniformStops
from metvae_cli.samplers.schedule import Linear
from tests.objectives.imposed import NODES, NOISE, STEPS, Logits, impose_noise, make_path, make_sampler, parameters
from tests.objectives.oracle import Parameters, Problem, ProposalName, State
from tests.objectives.test_enumeration import deviation
from tests.runs import configuration

pytestmark = pytest.mark.usefixtures("double")
FLOWS: tuple[ProposalName, ...] = ("flow_coin", "flow_lifted")
EXACT = 1e-9


def problems(num_steps: tuple[int, ...] = (1, 2, 3)) -> list[Problem]:
    """With constant and with annealed targets."""
    return [
        Problem("bernoulli", proposal, barker, "path", tuple(betas), NOISE[0][:steps])
        for proposal in (*STEPS, *FLOWS)
        for barker in (True, False)
        for steps in num_steps
        for betas in ([1.0] * steps, [(k + 1) / (steps + 1) for k in range(steps)])
    ]


def name_of(problem: Problem) -> str:
    target = "constant" if problem.betas[0] == 1.0 else "annealed"
    return f"{problem.proposal}-{'barker' if problem.barker else 'metropolis'}-{target}-K{len(problem.betas)}"


def end_of(problem: Problem, z_0: Tensor, p: Parameters, moves: int) -> Tensor:
    """Where the first moves lead, by the oracle."""
    state = problem.first(z_0)
    for step in range(moves):
        noise, _ = problem.before_move(state, p, step)
        _, moved, turned, _ = problem.accept(state.z, noise, p, step)
        state = State(moved, turned)
    return state.z


def log_reverse(problem: Problem, z: Tensor, p: Parameters, moves: int) -> Tensor:
    """log r of so many moves that ended at z: p.reverse has slope and offset of each stop's logit, if it is learned."""
    if not p.reverse:
        return torch.full_like(z, -math.log(len(problem.betas) + 1))
    powers = [(slope * z + offset).exp() for slope, offset in p.reverse]
    return (powers[moves] / sum(powers, torch.zeros_like(z))).log()


def learned(problem: Problem) -> tuple[Parameters, Reverse]:
    """Parameters with those of a reverse distribution over stops, and that distribution."""
    stops = range(len(problem.betas) + 1)
    pairs = [
        (torch.tensor(0.5 - 0.4 * k).requires_grad_(), torch.tensor(0.7 * k - 0.3).requires_grad_()) for k in stops
    ]
    reverse = LearnedStops(1, 1, len(problem.betas), ())
    reverse.net = Logits(pairs)  # pyright: ignore[reportAttributeAccessIssue]
    return replace(parameters(problem), reverse=pairs), reverse


def expected(problem: Problem, z_0: Tensor, p: Parameters) -> list[tuple[Tensor, Tensor]]:
    """Probability and log-weight of each of the K + 1 stops, by the oracle."""
    found, steps = [], len(problem.betas)
    for moves in range(steps + 1):
        decided = min(moves + 1, steps)
        shorter = replace(problem, betas=problem.betas[:decided], noise=problem.noise[:decided])
        history = tuple(int(k < moves) for k in range(decided))
        (one,) = [path for path in shorter.paths(z_0, p) if path[0] == history]
        log_r = log_reverse(problem, end_of(problem, z_0, p, moves), p, moves)
        found.append((one[1], one[2] + decided * math.log(2) + log_r))
    return found


def sampler_of(problem: Problem, p: Parameters, reverse: Reverse) -> Sampler:
    sampler = make_sampler(problem, p)
    if problem.betas[0] < 1:
        sampler.schedule = Linear(len(problem.betas))
    sampler.decisions, sampler.reverse = "stopped", reverse
    return sampler


def of_package(
    problem: Problem, p: Parameters, monkeypatch: pytest.MonkeyPatch, reverse: Reverse, *, through_tests: bool = True
) -> dict[str, Tensor]:
    """Means over stops of log w and, in logarithm, of w, for a chain from each of two nodes."""
    sampler = sampler_of(problem, p, reverse)
    z_0 = p.mean + p.log_scale.exp() * NODES[:2]
    impose_noise(problem, monkeypatch)
    path = make_path(problem, p, sampler)
    histories = histories_of(sampler, z_0[:, None, None], path, create_graph=True, through_tests=through_tests)
    weights, _ = log_weights(histories.trajectory, "path", sampler, path)
    each = {"hmc_3": 3, "partial_averaged": 2, "partial_fixed": 2}.get(problem.proposal, 1)
    assert path.evaluations == sampler.evaluations * 2 == 2 * (1 + each * len(problem.betas))
    assert torch.allclose(histories.log_probability.exp().sum(0), torch.ones(2, 1))
    return {"mean": histories.expectation(weights).mean(), "log": histories.log_expectation(weights).logsumexp(0).sum()}


def of_oracle(problem: Problem, p: Parameters) -> dict[str, Tensor]:
    z_0 = p.mean + p.log_scale.exp() * NODES[:2]
    means, sums = [], []
    for chain, one in enumerate((problem, replace(problem, noise=NOISE[1][: len(problem.betas)]))):
        stops = expected(one, z_0[[chain]], p)
        means.append(sum((chance * log_w for chance, log_w in stops), torch.zeros(1)))
        floors = [torch.where(chance > 0, chance, 1e-300).log() + log_w for chance, log_w in stops]
        sums.append(torch.stack(floors).logsumexp(0))
    return {"mean": torch.cat(means).mean(), "log": torch.cat(sums).logsumexp(0)}


def worst_gradient(ours: Tensor, theirs: Tensor, p: Parameters) -> float:
    """Largest difference of the gradients of two values."""
    gradients = [torch.autograd.grad(one, p.all(), retain_graph=True, materialize_grads=True) for one in (ours, theirs)]
    return deviation(*map(list, gradients))


@pytest.mark.parametrize("problem", problems(), ids=name_of)
def test_bound_and_gradient_are_exact(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    p = parameters(problem)
    ours, theirs = of_package(problem, p, monkeypatch, UniformStops()), of_oracle(problem, p)
    for name, found in ours.items():
        assert abs(found - theirs[name]) < 1e-10
        assert worst_gradient(found, theirs[name], p) < EXACT


@pytest.mark.parametrize("problem", problems((2,)), ids=name_of)
def test_bound_and_gradient_are_exact_with_a_learned_reverse_distribution(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, reverse = learned(problem)
    ours, theirs = of_package(problem, p, monkeypatch, reverse), of_oracle(problem, p)
    for name, found in ours.items():
        assert abs(found - theirs[name]) < 1e-10
        assert worst_gradient(found, theirs[name], p) < EXACT
    assert min(float(gradient.abs().sum()) for gradient in torch.autograd.grad(ours["log"], p.all()[-6:])) > 1e-6
    assert abs(of_package(problem, p, monkeypatch, UniformStops())["log"] - theirs["log"]) > 1e-3


@pytest.mark.parametrize("problem", problems((2,)), ids=name_of)
def test_the_mean_weight_needs_no_gradient_through_the_tests_and_the_mean_of_its_logarithm_does(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = parameters(problem)
    ours = of_package(problem, p, monkeypatch, UniformStops(), through_tests=False)
    theirs = of_oracle(problem, p)
    assert worst_gradient(ours["log"], theirs["log"], p) < EXACT
    assert worst_gradient(ours["mean"], theirs["mean"], p) > 1e-3


@pytest.mark.parametrize("problem", problems((2,)), ids=name_of)
def test_the_reverse_distribution_of_chains_that_go_on_is_rejected(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = parameters(problem)
    ours, theirs = of_package(problem, p, monkeypatch, Uniform()), of_oracle(problem, p)
    assert abs(ours["mean"] - theirs["mean"] - math.log(3 / 4)) < 1e-10
    assert abs(ours["mean"] - theirs["mean"]) > 0.1


def test_the_mean_weight_does_not_depend_on_the_acceptance_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the mean over stops of the unadjusted weights; less where a Metropolis rejection cannot happen."""
    for problem in problems((3,)):
        if problem.barker:
            metropolis, p = replace(problem, barker=False), parameters(problem)
            values = [
                float(of_package(one, p, monkeypatch, UniformStops())["log"].detach()) for one in (problem, metropolis)
            ]
            stops = expected(metropolis, (p.mean + p.log_scale.exp() * NODES[:2]).detach(), p)
            if all(float(chance.detach().min()) > 0 for chance, _ in stops):
                assert values[1] == pytest.approx(values[0], abs=1e-10)
            else:
                assert values[1] < values[0]


@pytest.mark.parametrize("weighed", [False, True], ids=["probability", "share"])
def test_stops_are_drawn_by_their_probabilities_or_shares_of_the_weight(weighed: bool) -> None:
    problem = next(one for one in problems((2,)) if name_of(one) == "langevin-barker-annealed-K2")
    p = parameters(problem)
    sampler = sampler_of(problem, p, UniformStops())
    torch.manual_seed(0)
    z_0 = (p.mean.detach() + torch.zeros(20_000))[:, None, None]
    with torch.no_grad():
        path = make_path(problem, p, sampler)
        histories = enumerate_stops(sampler, z_0, path, create_graph=False)
        weights, _ = log_weights(histories.trajectory, "path", sampler, path)
        accepted = histories.draw(weights if weighed else None).info.accepted
        chances = histories.log_probability.exp()
        if weighed:
            chances = chances * weights.exp().view_as(chances)
            chances = chances / chances.sum(0)
    assert not bool((accepted[1] & ~accepted[0]).any())  # no move after a rejection
    for stop, chance in enumerate(chances.mean((1, 2))):
        share = (accepted.sum(0) == stop).double().mean()
        assert abs(share - chance) < 4 * (chance * (1 - chance) / len(z_0)) ** 0.5


@pytest.mark.parametrize("reverse", ["uniform", "learned", "exact"])
def test_the_gradient_of_a_mean_weight_is_that_through_the_tests(reverse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the objective as it is built: where it leaves the tests out, nothing is lost."""
    words = ["sampler=hmc", "objective=metvae", "objective.functional=log_mean_exp", "sampler.decisions=enumerated"]
    tiny = ["encoder.hidden=[4]", "decoder.hidden=[4]", "latent_dim=2", "sampler.num_steps=2", "trainer.device=cpu"]
    learner = build_experiment(configuration(*words, *tiny, f"sampler.reverse={reverse}"), []).learner
    model, sampler = learner.model.double(), learner.sampler.double()
    x = learner.dataset.batch(torch.arange(3)).double()
    parameters = [*model.parameters(), *sampler.parameters()]

    def gradients() -> list[Tensor]:
        torch.manual_seed(0)
        loss = learner.objective(model, sampler, x).loss
        return list(torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True))

    found = gradients()

    def through_tests(*given: Any, **options: Any) -> Histories:
        return histories_of(*given, **(options | {"through_tests": True}))

    monkeypatch.setattr(weights_module, "histories_of", through_tests)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, gradients(), strict=True))


def test_what_metropolis_rejections_that_cannot_happen_cost_is_said() -> None:
    def notes_of(rule: str, functional: FunctionalName) -> list[str]:
        problem = next(one for one in problems((3,)) if one.barker == (rule == "barker"))
        sampler = sampler_of(problem, parameters(problem), UniformStops())
        return WeightObjective("path", functional, 1, baseline="none").validate(sampler)

    loose, jumps = notes_of("metropolis", "log_mean_exp")
    assert f"log (K + 1) = {math.log(4):.2f}" in loose
    assert "leaves out" in jumps
    assert "sampler.acceptance=barker" in jumps
    assert not notes_of("barker", "log_mean_exp")
    assert not any("leaves out" in note for note in notes_of("metropolis", "mean"))
