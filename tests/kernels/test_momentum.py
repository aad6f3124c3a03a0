"""Kernels that keep a momentum: the joint law of position and momentum stays exact, and what is wrong is rejected."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.base import Refreshed
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.partial_hamiltonian import PartialHamiltonian
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.tempered_hamiltonian import TemperedHamiltonian, TemperedStep
from tests.targets import Banana, Target, normal_log_prob

pytestmark = pytest.mark.usefixtures("double")
DRAWS, STEPS, FALSE_ALARM = 60_000, 8, 1e-6
TARGET = Banana()


class NeverTurning(PartialHamiltonian):
    """Keeps its direction after a rejection."""

    def rejected(self, point: Point) -> Point:
        return point


class AlwaysTurning(PartialHamiltonian):
    """Turns after an acceptance and after a rejection (the mistake of published code)."""

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Any:
        proposed = super().propose(point, path, beta, create_graph=create_graph, noise=noise)
        momentum = proposed.point.momentum
        assert momentum is not None
        return proposed._replace(point=proposed.point._replace(momentum=-momentum))


class ForgottenRoot(PartialHamiltonian):
    """Refreshes with 1 - rho^2 in place of its square root."""

    def refresh(self, point: Point) -> Refreshed:
        rho = torch.sigmoid(self.logit)
        momentum = torch.randn_like(point.z) if point.momentum is None else point.momentum
        return Refreshed(point._replace(momentum=rho * momentum + (1 - rho**2) * torch.randn_like(point.z)))


def run(proposal: PartialHamiltonian, rule: Acceptance, target: Target) -> tuple[Tensor, Tensor, float]:
    def broad(z: Tensor) -> Tensor:
        return normal_log_prob(z, 0.0, 3.0).sum(-1)

    path = AnnealedPath(broad, target.log_prob, needs_score=True)
    kernel = MetropolisHastings(proposal, rule)
    point = path.evaluate(target.sample(DRAWS)[:, None], create_graph=False)
    point = point._replace(momentum=torch.randn_like(point.z))
    rates = []
    with torch.no_grad():
        for _ in range(STEPS):
            point, info = kernel.step(point, path, torch.tensor(1.0), create_graph=False)
            rates.append(info.accept_prob.mean().item())
    assert point.momentum is not None
    return point.z[:, 0], point.momentum[:, 0], sum(rates) / STEPS


def smallest_p_value(z: Tensor, momentum: Tensor) -> float:
    """Over coordinates, momenta, their radius, and the momentum along the first coordinate."""
    uniforms = torch.cat([TARGET.uniforms(z), torch.special.ndtr(momentum)], -1).clamp(1e-12, 1 - 1e-12)
    normals = torch.special.ndtri(uniforms)
    mixed = torch.special.ndtr((normals[:, :2] + normals[:, 2:]) / 2**0.5)
    radius = stats.chi2.cdf(normals.square().sum(-1).numpy(), 4)
    columns = [*uniforms.T.numpy(), *mixed.T.numpy(), radius]
    # Not Python's min, which takes any number for smaller than NaN.
    return float(np.min([stats.kstest(column, "uniform").pvalue for column in columns])) * len(columns)


@pytest.mark.parametrize("rule", Acceptance)
@pytest.mark.parametrize("turn", ["rejection", "acceptance"])
@pytest.mark.parametrize("persistence", [0.1, 0.5, 0.9])
def test_partial_refreshment_keeps_the_joint_law(rule: Acceptance, turn: Any, persistence: float) -> None:
    proposal = PartialHamiltonian(StepSize(1.0), 2, persistence, turn=turn)
    z, momentum, acceptance = run(proposal, rule, TARGET)
    assert 0.05 < acceptance < 0.95
    assert smallest_p_value(z, momentum) > FALSE_ALARM


@pytest.mark.parametrize("wrong", [NeverTurning, AlwaysTurning, ForgottenRoot])
def test_wrong_momenta_are_rejected(wrong: type[PartialHamiltonian]) -> None:
    z, momentum, _ = run(wrong(StepSize(1.0), 2, 0.9), Acceptance.METROPOLIS, TARGET)
    assert smallest_p_value(z, momentum) < FALSE_ALARM


@pytest.mark.parametrize("kind", ["fixed", "free", "none"])
def test_the_cooling_is_complete(kind: Any) -> None:
    """prod_k alpha_k = T_0^(-1/2), and T_0 is what was asked for."""
    family = TemperedHamiltonian(num_steps=5, tempering=kind, initial_temperature=2.0 if kind == "fixed" else 1.5)
    log_initial, log_alpha = family.tempering()
    assert log_alpha.shape == (5,)
    assert torch.allclose(log_alpha.sum(), -0.5 * log_initial)
    expected = {"fixed": 2.0, "free": 0.9**-10, "none": 1.0}[kind]
    assert torch.allclose(log_initial.exp(), torch.tensor(expected))


def test_the_tempering_is_shared_and_the_momentum_drawn_once() -> None:
    family = TemperedHamiltonian(num_steps=3)
    first, second, _ = family.proposals([StepSize(0.1) for _ in range(3)])
    assert isinstance(first, TemperedStep)
    assert isinstance(second, TemperedStep)
    assert first.tempering is second.tempering
    path = AnnealedPath(lambda z: -z.square().sum(-1), lambda z: -z.square().sum(-1), needs_score=True)
    point, log_weight, _ = first.refresh(path.evaluate(torch.zeros(1000, 1, 2), create_graph=False))
    assert point.momentum is not None
    assert log_weight is not None
    assert abs(point.momentum.var() - 1.5) < 0.15
    assert second.refresh(point) == (point, None, None)


@pytest.mark.parametrize("persistence", [0.0, 1.0, -0.1])
def test_persistence_out_of_range_is_refused(persistence: float) -> None:
    with pytest.raises(ValueError, match="persistence="):
        PartialHamiltonian(StepSize(0.1), persistence=persistence)
