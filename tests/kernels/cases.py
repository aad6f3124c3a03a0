"""The table of kernels. A new kernel gets one row here and inherits every test that goes through the table.

`make` builds the proposal from its StepSize (in CASES) or from the latent dimension (in FLOW_CASES, of proposals that
have no step size); EVERY_CASE holds both. `mutants` are wrong versions of it, by name, that the statistical tests
must reject: a test that passes them proves nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metvae_cli.bijections import Bijection
from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.base import Proposal, Proposed
from metvae_cli.kernels.flow import Coin, Flow
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.independent import Independent, IndependentFlow
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.random_walk import RandomWalk
from metvae_cli.kernels.step_size import StepSize

MakeProposal = Callable[[StepSize], Proposal]


@dataclass(frozen=True)
class Case:
    """A proposal under test.

    step_size: gives acceptance well inside (0, 1) on targets of unit scale
    """

    name: str
    make: MakeProposal
    step_size: float
    mutants: Mapping[str, MakeProposal] = field(default_factory=dict)

    def proposal(self, dim: int = 2, mutant: str | None = None) -> Proposal:
        """The proposal, or a mutant of it, for positions in R^dim."""
        del dim  # a step size serves every dimension
        return (self.mutants[mutant] if mutant else self.make)(StepSize(self.step_size))


@dataclass(frozen=True)
class FlowCase:
    """A proposal under test that is made for a dimension and has no step size."""

    name: str
    make: Callable[[int], Proposal]
    mutants: Mapping[str, Callable[[int], Proposal]] = field(default_factory=dict)

    def proposal(self, dim: int = 2, mutant: str | None = None) -> Proposal:
        """The proposal, or a mutant of it, for positions in R^dim."""
        return (self.mutants[mutant] if mutant else self.make)(dim)


class DriftingWalk(RandomWalk):
    """A random walk with a preferred direction that it does not report."""

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        shifted = super().propose(point, path, beta, create_graph=create_graph, noise=noise).point.z + 0.1
        return Proposed(path.evaluate(shifted, create_graph=create_graph), torch.zeros_like(point.log_final))


class SilentLangevin(Langevin):
    """Langevin without its correction."""

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        proposed = super().propose(point, path, beta, create_graph=create_graph, noise=noise)
        return proposed._replace(log_correction=torch.zeros_like(proposed.log_correction))


class FlippedLangevin(Langevin):
    """Langevin with the sign of its correction turned."""

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        proposed = super().propose(point, path, beta, create_graph=create_graph, noise=noise)
        return proposed._replace(log_correction=-proposed.log_correction)


class NoKineticTerm(Hamiltonian):
    """HMC that leaves the momenta out of the ratio."""

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        proposed = super().propose(point, path, beta, create_graph=create_graph, noise=noise)
        return proposed._replace(log_correction=torch.zeros_like(proposed.log_correction))


class MissingHalfKick(Hamiltonian):
    """HMC whose last half kick is missing."""

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        start = torch.randn_like(point.z) if noise is None else noise
        step, momentum, here = self.step_size(), start, point
        for index in range(self.num_leapfrog):
            momentum = momentum + (0.5 if index == 0 else 1.0) * step * path.score(here, beta)
            here = path.evaluate(here.z + step * momentum, create_graph=create_graph)
        return Proposed(here, 0.5 * (start.square() - momentum.square()).sum(-1))


CASES = (
    Case("random_walk", RandomWalk, 1.2, {"drifting": DriftingWalk}),
    Case("langevin", Langevin, 0.35, {"no_correction": SilentLangevin, "flipped_correction": FlippedLangevin}),
    Case(
        "hmc_1",
        Hamiltonian,
        1.0,
        {"no_kinetic_term": NoKineticTerm, "missing_half_kick": MissingHalfKick},
    ),
    Case(
        "hmc_4",
        lambda step_size: Hamiltonian(step_size, num_leapfrog=4),
        0.5,
        {
            "no_kinetic_term": lambda step_size: NoKineticTerm(step_size, num_leapfrog=4),
            "missing_half_kick": lambda step_size: MissingHalfKick(step_size, num_leapfrog=4),
        },
    ),
)

CASE_IDS = [case.name for case in CASES]


def stir(module: nn.Module, seed: int = 0, scale: float = 1.0) -> None:
    """Set random weights far from the identity, the same whenever it is called."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            width = parameter.shape[-1] if parameter.dim() > 1 else 4
            parameter.copy_(scale * width**-0.5 * torch.randn(parameter.shape, generator=source))


class NoJacobian(Bijection):
    """A flow that reports no Jacobian."""

    def forward(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(w, context)[0], torch.zeros_like(w[..., 0])

    def inverse(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().inverse(w, context)[0], torch.zeros_like(w[..., 0])

    def directed(self, w: Tensor, direction: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().directed(w, direction, context)[0], torch.zeros_like(w[..., 0])


class FlippedJacobian(Bijection):
    """A flow that reports the Jacobian of the other direction."""

    def directed(self, w: Tensor, direction: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moved, log_det = super().directed(w, direction, context)
        return moved, -log_det


class ForgottenCoin(Coin):
    """A coin whose bias is not reported."""

    def log_prob(self, direction: Tensor) -> Tensor:
        return torch.zeros_like(direction[..., 0])

    def log_way_back(self, direction: Tensor) -> Tensor:
        return torch.zeros_like(direction[..., 0])


class GoesOn(Flow):
    """A lifted flow that does not turn where it is rejected."""

    def rejected(self, point: Point) -> Point:
        return point


class NoRatio(Independent):
    """An independent proposal that leaves the ratio of the densities of q out."""

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        proposed = super().propose(point, path, beta, create_graph=create_graph, noise=noise)
        return proposed._replace(log_correction=torch.zeros_like(proposed.log_correction))


def bijection(dim: int, kind: type[Bijection] = Bijection) -> Bijection:
    made = kind(dim, 0, "realnvp", layers=2, hidden=(8,))
    stir(made)
    return made


def independent_flow(dim: int, kind: type[Bijection] = Bijection) -> IndependentFlow:
    proposal = IndependentFlow(dim, 0)
    proposal.bijection = bijection(dim, kind)
    return proposal


FLOW_CASES = (
    FlowCase(
        "flow_coin",
        lambda dim: Flow(bijection(dim), Coin(0.5)),
        {
            "no_jacobian": lambda dim: Flow(bijection(dim, NoJacobian), Coin(0.5)),
            "flipped_jacobian": lambda dim: Flow(bijection(dim, FlippedJacobian), Coin(0.5)),
        },
    ),
    FlowCase(
        "flow_biased_coin",
        lambda dim: Flow(bijection(dim), Coin(0.8)),
        {"forgotten_coin": lambda dim: Flow(bijection(dim), ForgottenCoin(0.8))},
    ),
    FlowCase(
        "flow_lifted",
        lambda dim: Flow(bijection(dim), None),
        {
            "no_jacobian": lambda dim: Flow(bijection(dim, NoJacobian), None),
            "flipped_jacobian": lambda dim: Flow(bijection(dim, FlippedJacobian), None),
            "goes_on": lambda dim: GoesOn(bijection(dim), None),
        },
    ),
    FlowCase("independent", lambda dim: Independent(), {"no_ratio": lambda dim: NoRatio()}),
    FlowCase("independent_flow", independent_flow, {"no_jacobian": lambda dim: independent_flow(dim, NoJacobian)}),
)

AnyCase = Case | FlowCase
EVERY_CASE: tuple[AnyCase, ...] = (*CASES, *FLOW_CASES)
EVERY_CASE_ID = [case.name for case in EVERY_CASE]
