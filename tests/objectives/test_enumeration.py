"""The bound and the gradient of every parameter against exact enumeration of the 2^K decisions (oracle.py).

The package's chain is run once for every pair of (starting node, history of decisions) of two chains, with the
decisions imposed and the noise fixed; the results are weighed by the probabilities that the oracle gives. No sampling
error is left.
"""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from metvae_cli.densities import AnnealedPath
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.base import Proposal
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.partial_hamiltonian import PartialHamiltonian
from metvae_cli.kernels.random_walk import RandomWalk
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.objectives import functionals
from metvae_cli.objectives.functionals import Functional
from metvae_cli.objectives.score_function import score_term
from metvae_cli.objectives.weights import log_weights
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.schedule import Constant, Linear
from tests.objectives.oracle import Parameters, Problem, ProposalName, expectation, expectation_of_pairs

pytestmark = pytest.mark.usefixtures("double")

NODES = torch.tensor([-1.9, -0.6, 0.1, 0.9, 2.2], dtype=torch.float64)
WEIGHTS = torch.tensor([0.1, 0.25, 0.3, 0.25, 0.1], dtype=torch.float64)
NOISE = ((0.7, -1.1, 0.4), (-0.5, 0.9, 1.3))  # of the two chains
EXACT = 1e-9
REJECTED = 1e-4  # of wrong estimators: five orders of magnitude above what a right one is allowed
STEPS = {
    "random_walk": 0.9,
    "langevin": 0.25,
    "hmc_1": 0.7,
    "hmc_3": 0.4,
    "partial_averaged": 0.5,
    "partial_fixed": 0.5,
}


def make_proposal(name: ProposalName, step_size: StepSize) -> Proposal:
    if name == "random_walk":
        return RandomWalk(step_size)
    if name.startswith("partial"):
        noise = "averaged" if name == "partial_averaged" else "fixed"
        return PartialHamiltonian(step_size, 2, learn_persistence=True, noise=noise)
    return Langevin(step_size) if name == "langevin" else Hamiltonian(step_size, int(name[-1]))


class Imposed(MetropolisHastings):
    """Takes the decisions it is told."""

    decisions: Tensor

    def decide(self, log_accept: Tensor) -> Tensor:
        return self.decisions.expand_as(log_accept)


def parameters(problem: Problem) -> Parameters:
    def leaf(value: float) -> Tensor:
        return torch.tensor(value, requires_grad=True)

    steps = [leaf(STEPS[problem.proposal] * (1 + 0.2 * k)).log().detach() for k in range(len(problem.betas))]
    steps = [step.requires_grad_() for step in steps]
    logits = [leaf(0.3 + 0.2 * k) for k in range(len(problem.betas))] if problem.keeps_momentum else []
    return Parameters(leaf(0.3), leaf(-0.2), leaf(1.3), leaf(-0.4), steps, logits)


def make_sampler(problem: Problem, p: Parameters, *, detach_forces: bool = False) -> Sampler:
    rule = Acceptance.BARKER if problem.barker else Acceptance.METROPOLIS
    kernels = [Imposed(make_proposal(problem.proposal, StepSize(1.0, "learned")), rule) for _ in problem.betas]
    for kernel, log_step in zip(kernels, p.log_steps, strict=True):
        step_size = kernel.proposal.step_size
        assert isinstance(step_size, StepSize)
        del step_size.log_value
        step_size.log_value = log_step  # the oracle's own tensor: gradients land in one place
    for kernel, logit in zip(kernels, p.logits, strict=False):
        del kernel.proposal.logit
        kernel.proposal.logit = logit  # pyright: ignore
    schedule = Constant(len(kernels)) if problem.bookkeeping == "path" else Linear(len(kernels))
    return Sampler(kernels, schedule, detach_forces=detach_forces)


def package_estimate(
    problem: Problem,
    p: Parameters,
    functional: Functional,
    monkeypatch: pytest.MonkeyPatch,
    *,
    with_score: bool = True,
    detach_forces: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Exact expectation of the package's bound and of its gradient estimate, two chains per datum."""
    others = replace(problem, noise=NOISE[1][: len(problem.betas)])
    z_0 = p.mean + p.log_scale.exp() * NODES
    columns = list(itertools.product(problem.paths(z_0, p), others.paths(z_0, p)))
    starts = torch.cartesian_prod(torch.arange(len(NODES)), torch.arange(len(NODES))).T  # (2, nodes^2)
    each = starts.shape[1]
    chance = torch.cat([(WEIGHTS * a[1])[starts[0]] * (WEIGHTS * b[1])[starts[1]] for a, b in columns]).detach()
    decisions = torch.tensor([[a[0], b[0]] for a, b in columns]).bool().repeat_interleave(each, 0)  # (B, 2, K)
    sampler = make_sampler(problem, p, detach_forces=detach_forces)
    for k, kernel in enumerate(sampler.steps):
        assert isinstance(kernel, Imposed)
        kernel.decisions = decisions[:, :, k].T
    drawn = torch.tensor(NOISE)[:, : len(problem.betas)]
    if problem.keeps_momentum:  # the first draw of each chain is its momentum
        drawn = torch.cat([torch.tensor([[problem.first_momentum], [others.first_momentum]]), drawn], 1)
    noise = iter(drawn[:, :, None, None].unbind(1))
    monkeypatch.setattr(torch, "randn_like", lambda z: next(noise).expand_as(z))
    path = AnnealedPath(
        lambda z: problem.log_q(z[..., 0], p),
        lambda z: problem.log_joint(z[..., 0], p),
        needs_score=sampler.needs_score,
        detach_forces=detach_forces,
        context=torch.zeros(1, 1),
    )
    nodes = NODES[starts].repeat(1, len(columns))[..., None]
    trajectory = sampler(Normal(p.mean, p.log_scale.exp()).mean + p.log_scale.exp() * nodes, path, create_graph=True)
    weights = log_weights(trajectory, problem.bookkeeping, sampler, path)
    bound = functional(weights, 0)
    surrogate = bound + score_term(functional, weights, trajectory.info.log_alpha) * float(with_score)
    gradient = torch.autograd.grad((chance * surrogate).sum(), p.all())
    return (chance * bound).sum().detach(), list(gradient)


def exact(problem: Problem, p: Parameters, functional: Functional) -> tuple[Tensor, list[Tensor]]:
    """The oracle's value and gradient."""
    others = replace(problem, noise=NOISE[1][: len(problem.betas)])
    if functional is functionals.mean:
        both = [expectation(one, p, NODES, WEIGHTS) for one in (problem, others)]
        value = (both[0] + both[1]) / 2
    else:
        value = expectation_of_pairs(problem, others, p, NODES, WEIGHTS)
    return value.detach(), list(torch.autograd.grad(value, p.all()))


def problems(num_steps: tuple[int, ...] = (1, 2, 3)) -> list[Problem]:
    found = []
    for proposal, barker, likelihood, bookkeeping, steps in itertools.product(
        STEPS, (True, False), ("gaussian", "bernoulli"), ("path", "reversal"), num_steps
    ):
        if proposal == "partial_fixed" and bookkeeping == "reversal":
            continue  # decisions cannot be summed out for one value of the noise
        betas = [1.0] * steps if bookkeeping == "path" else [(k + 1) / (steps + 1) for k in range(steps)]
        found.append(Problem(likelihood, proposal, barker, bookkeeping, tuple(betas), NOISE[0][:steps]))  # pyright: ignore
    return found


def name_of(problem: Problem) -> str:
    rule = "barker" if problem.barker else "metropolis"
    return f"{problem.bookkeeping}-{problem.proposal}-{rule}-{problem.likelihood}-K{len(problem.betas)}"


def deviation(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).abs()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("problem", problems(), ids=name_of)
def test_bound_and_gradient_are_exact(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    p = parameters(problem)
    for functional in (functionals.mean, functionals.log_mean_exp):
        value, gradient = package_estimate(problem, p, functional, monkeypatch)
        expected_value, expected_gradient = exact(problem, p, functional)
        assert abs(value - expected_value) < 1e-10
        assert deviation(gradient, expected_gradient) < EXACT


@pytest.mark.parametrize("problem", problems((2,)), ids=name_of)
def test_a_gradient_without_the_score_term_is_rejected(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    p = parameters(problem)
    _, gradient = package_estimate(problem, p, functionals.mean, monkeypatch, with_score=False)
    assert deviation(gradient, exact(problem, p, functionals.mean)[1]) > REJECTED


@pytest.mark.parametrize("problem", [p for p in problems((2,)) if p.proposal != "random_walk"], ids=name_of)
def test_a_gradient_with_detached_forces_is_rejected(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    p = parameters(problem)
    value, gradient = package_estimate(problem, p, functionals.mean, monkeypatch, detach_forces=True)
    expected_value, expected_gradient = exact(problem, p, functionals.mean)
    assert abs(value - expected_value) < 1e-10  # the bound itself is the same; only its gradient is biased
    assert deviation(gradient, expected_gradient) > REJECTED


@pytest.mark.parametrize("problem", problems((2,)), ids=name_of)
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
