"""The package's chains for the problems of oracle.py, with noise and decisions imposed, on the oracle's parameters."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from metvae_cli.bijections import Bijection
from metvae_cli.densities import AnnealedPath
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.base import Proposal
from metvae_cli.kernels.flow import Coin, Flow
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
from metvae_cli.samplers.exact_reverse import Exact
from metvae_cli.samplers.reverse import Learned
from metvae_cli.samplers.schedule import Constant, Linear
from metvae_cli.samplers.trajectory import Trajectory
from tests.objectives.oracle import COIN, Parameters, Problem, ProposalName, expectation, expectation_of_pairs

NODES = torch.tensor([-1.9, -0.6, 0.1, 0.9, 2.2], dtype=torch.float64)
WEIGHTS = torch.tensor([0.1, 0.25, 0.3, 0.25, 0.1], dtype=torch.float64)
NOISE = ((0.7, -1.1, 0.4), (-0.5, 0.9, 1.3))  # of the two chains
STEPS: dict[ProposalName, float] = {
    "random_walk": 0.9,
    "langevin": 0.25,
    "hmc_1": 0.7,
    "hmc_3": 0.4,
    "partial_averaged": 0.5,
    "partial_fixed": 0.5,
}


class Affine(Bijection):
    """T w = e^s w + t, of the oracle's own tensors."""

    def __init__(self, log_slope: Tensor, shift: Tensor) -> None:
        nn.Module.__init__(self)
        self.log_slope, self.shift = log_slope, shift

    def forward(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.log_slope.exp() * w + self.shift, self.log_slope.expand(w.shape[:-1])

    def inverse(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (w - self.shift) * (-self.log_slope).exp(), -self.log_slope.expand(w.shape[:-1])


class Logits(nn.Module):
    """The logits of a learned reverse distribution, of the oracle's own tensors."""

    def __init__(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.slopes, self.offsets = (torch.stack(part) for part in zip(*pairs, strict=True))

    def forward(self, known: Tensor) -> Tensor:
        return known[..., :1] * self.slopes + self.offsets


def make_proposal(problem: Problem, p: Parameters, step: int) -> Proposal:
    name = problem.proposal
    if problem.is_flow:
        return Flow(Affine(*p.flows[step]), Coin(COIN) if name == "flow_coin" else None)
    step_size = StepSize(1.0, "learned")
    del step_size.log_value
    step_size.log_value = p.log_steps[step]  # the oracle's own tensor: gradients land in one place
    if problem.is_partial:
        proposal = PartialHamiltonian(step_size, 2, noise="averaged" if name == "partial_averaged" else "fixed")
        del proposal.logit
        proposal.logit = p.logits[step]
        return proposal
    if name == "random_walk":
        return RandomWalk(step_size)
    return Langevin(step_size) if name == "langevin" else Hamiltonian(step_size, int(name[-1]))


class Imposed(MetropolisHastings):
    """Takes the decisions it is told."""

    decisions: Tensor

    def decide(self, log_accept: Tensor) -> Tensor:
        return self.decisions.expand_as(log_accept)


def parameters(problem: Problem) -> Parameters:
    def leaf(value: float) -> Tensor:
        return torch.tensor(value, requires_grad=True)

    steps = [leaf(STEPS.get(problem.proposal, 1.0) * (1 + 0.2 * k)).log().detach() for k in range(len(problem.betas))]
    steps = [step.requires_grad_() for step in steps]
    count = range(len(problem.betas))
    logits = [leaf(0.3 + 0.2 * k) for k in count] if problem.is_partial else []
    flows = [(leaf(0.4 - 0.3 * k), leaf(0.5 - 0.2 * k)) for k in count] if problem.is_flow else []
    reverse = [(leaf(0.5 - 0.4 * k), leaf(0.2 + 0.3 * k)) for k in count] if problem.reverse == "learned" else []
    p = Parameters(
        leaf(0.3), leaf(-0.2), leaf(1.3), leaf(-0.4), [] if problem.is_flow else steps, logits, flows, reverse
    )
    return p


def second(problem: Problem) -> Problem:
    """The problem of the second chain."""
    return replace(problem, noise=NOISE[1][: len(problem.betas)])


def make_reverse(problem: Problem, p: Parameters) -> Learned | Exact | None:
    if problem.reverse == "learned":
        learned = Learned(1, 1, len(p.reverse), ())
        learned.net = Logits(p.reverse)  # pyright: ignore[reportAttributeAccessIssue]
        return learned
    return Exact() if problem.reverse == "exact" else None


def make_sampler(problem: Problem, p: Parameters, *, detach_forces: bool = False) -> Sampler:
    rule = Acceptance.BARKER if problem.barker else Acceptance.METROPOLIS
    kernels = [Imposed(make_proposal(problem, p, step), rule) for step in range(len(problem.betas))]
    schedule = Constant(len(kernels)) if problem.bookkeeping == "path" else Linear(len(kernels))
    return Sampler(kernels, schedule, detach_forces=detach_forces, reverse=make_reverse(problem, p))


def impose_noise(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of the two chains in place of what is drawn; more chains are groups of histories of these two."""
    drawn = torch.tensor(NOISE)[:, : len(problem.betas)]
    if problem.is_partial:  # the first draw of each chain is its momentum
        drawn = torch.cat([torch.full((2, 1), problem.first_momentum), drawn], 1)
    normal, uniform = (iter(drawn[:, :, None, None].unbind(1)) for _ in range(2))

    def take(source: Iterator[Tensor], like: Tensor) -> Tensor:
        return next(source).repeat(len(like) // 2, 1, 1).expand_as(like)

    monkeypatch.setattr(torch, "randn_like", lambda z: take(normal, z))
    # A direction is +1 where the uniform draw is small.
    monkeypatch.setattr(torch, "rand_like", lambda z: (take(uniform, z) < 0).to(z))


def make_path(problem: Problem, p: Parameters, sampler: Sampler, *, detach_forces: bool = False) -> AnnealedPath:
    return AnnealedPath(
        lambda z: problem.log_q(z[..., 0], p),
        lambda z: problem.log_joint(z[..., 0], p),
        needs_score=sampler.needs_score,
        detach_forces=detach_forces,
        context=torch.zeros(1, 1),
    )


def package_estimate(
    problem: Problem,
    p: Parameters,
    functional: Functional,
    monkeypatch: pytest.MonkeyPatch,
    *,
    with_score: bool = True,
    score: Callable[[Tensor, Trajectory], Tensor] | None = None,
    detach_forces: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Exact expectation of the package's bound and of its gradient estimate, two chains per datum."""
    others = second(problem)
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
    impose_noise(problem, monkeypatch)
    path = make_path(problem, p, sampler, detach_forces=detach_forces)
    nodes = NODES[starts].repeat(1, len(columns))[..., None]
    trajectory = sampler(p.mean + p.log_scale.exp() * nodes, path, create_graph=True)
    weights, _ = log_weights(trajectory, problem.bookkeeping, sampler, path)
    bound = functional(weights, 0)
    term = score(weights, trajectory) if score else score_term(functional, weights, trajectory.info.log_alpha)
    surrogate = bound + term * float(with_score)
    gradient = torch.autograd.grad((chance * surrogate).sum(), p.all())
    return (chance * bound).sum().detach(), list(gradient)


def exact(problem: Problem, p: Parameters, functional: Functional) -> tuple[Tensor, list[Tensor]]:
    """The oracle's value and gradient."""
    others = second(problem)
    if functional is functionals.mean:
        both = [expectation(one, p, NODES, WEIGHTS) for one in (problem, others)]
        value = (both[0] + both[1]) / 2
    else:
        value = expectation_of_pairs(problem, others, p, NODES, WEIGHTS)
    return value.detach(), list(torch.autograd.grad(value, p.all()))
