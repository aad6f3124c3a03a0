"""Every kernel of the table: what is not finite never enters a chain, rows do not mix, and seeds repeat."""

import math

import pytest
import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.adaptation import Outcome, StepSizeAdaptation
from metvae_cli.kernels.base import Kernel, Proposal, Proposed, StepInfo
from metvae_cli.kernels.random_walk import RandomWalk
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.samplers.assembly import AcceptanceName, make_kernel
from tests.kernels.cases import CASE_IDS, CASES, EVERY_CASE, AnyCase, Case
from tests.targets import normal_log_prob
from tests.thinned import thinned

RULES: list[AcceptanceName] = ["metropolis", "barker", "none"]
EVERY_KERNEL = [pytest.param(case, rule, id=f"{case.name}-{rule}") for case in EVERY_CASE for rule in RULES]
WITH_STEP_SIZE = [pytest.param(case, rule, id=f"{case.name}-{rule}") for case in CASES for rule in RULES]


def standard_normal(z: Tensor) -> Tensor:
    return normal_log_prob(z, 0.0, 1.0).sum(-1)


def run(kernel: Kernel, log_prob: object, z: Tensor, steps: int = 5) -> tuple[Point, StepInfo]:
    path = AnnealedPath(
        standard_normal,
        log_prob,  # pyright: ignore
        needs_score=kernel.proposal.needs_score,
        draw_initial=lambda shape: torch.randn(*shape, *z.shape[1:]),
    )
    point = path.evaluate(z, create_graph=False)
    infos = []
    with torch.no_grad():
        for _ in range(steps):
            point, info = kernel.step(point, path, torch.tensor(1.0), create_graph=False)
            infos.append(info)
    columns = zip(*(info[:-1] for info in infos), strict=True)
    return point, StepInfo(*(torch.stack(entries) for entries in columns))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("case", "rule"), EVERY_KERNEL)
def test_what_is_not_finite_is_rejected_and_counted(case: AnyCase, rule: AcceptanceName, bad: float) -> None:
    def walled(z: Tensor) -> Tensor:
        return torch.where(z[..., 0] > 0.5, torch.full_like(z[..., 0], bad), standard_normal(z))

    start = -torch.rand(200, 1, 2)
    point, info = run(make_kernel(case.proposal(), rule), walled, start)
    assert torch.isfinite(point.z).all()
    assert torch.isfinite(point.log_final).all()
    assert (point.z[..., 0] <= 0.5).all()
    assert info.divergent.any()
    assert torch.isfinite(info.log_alpha).all()
    assert torch.isfinite(info.accept_prob).all()
    worthless = info.divergent & (rule == "none" and not case.proposal().is_reversible)
    for entry in (info.log_reversal, info.log_path):
        assert torch.isfinite(entry[~worthless]).all()
        assert (entry[worthless] == -math.inf).all()
    assert not (info.divergent & info.accepted).any()


@pytest.mark.parametrize("step_size", [1e-12, 1e6])
@pytest.mark.parametrize(("case", "rule"), WITH_STEP_SIZE)
def test_extreme_step_sizes_leave_finite_chains(case: Case, rule: AcceptanceName, step_size: float) -> None:
    kernel = make_kernel(case.make(StepSize(step_size)), rule)
    point, info = run(kernel, standard_normal, torch.randn(20, 1, 2))
    assert torch.isfinite(point.z).all()
    assert torch.isfinite(info.log_path).all()


@pytest.mark.parametrize(("case", "rule"), EVERY_KERNEL)
def test_rows_do_not_mix(case: AnyCase, rule: AcceptanceName) -> None:
    """Changing the other rows, even to NaN, leaves a row bitwise as it was."""
    kernel, start = make_kernel(case.proposal(), rule), torch.randn(3, 4, 2)
    torch.manual_seed(1)
    reference, _ = run(kernel, standard_normal, start)
    for other in (7.0, math.nan):
        changed = start.clone()
        changed[:, 1:] = other
        torch.manual_seed(1)
        point, _ = run(kernel, standard_normal, changed)
        assert torch.equal(point.z[:, 0], reference.z[:, 0])


@pytest.mark.parametrize(("case", "rule"), EVERY_KERNEL)
def test_the_point_carried_along_is_the_point_evaluated(case: AnyCase, rule: AcceptanceName) -> None:
    kernel = make_kernel(case.proposal(3), rule)
    point, _ = run(kernel, standard_normal, torch.randn(50, 2, 3))
    path = AnnealedPath(standard_normal, standard_normal, needs_score=kernel.proposal.needs_score)
    fresh = path.evaluate(point.z, create_graph=False)
    for carried, evaluated in zip(point._replace(momentum=None), fresh, strict=True):
        assert (carried is None) == (evaluated is None)
        if carried is not None and evaluated is not None:
            assert torch.allclose(carried, evaluated, atol=1e-6)


@pytest.mark.parametrize(("case", "rule"), WITH_STEP_SIZE)
def test_every_learned_parameter_gets_a_gradient(case: Case, rule: AcceptanceName) -> None:
    kernel = make_kernel(case.make(StepSize(case.step_size, "learned", dim=2)), rule)
    path = AnnealedPath(standard_normal, standard_normal, needs_score=kernel.proposal.needs_score)
    point = path.evaluate(torch.randn(500, 1, 2, requires_grad=True) + 1.0, create_graph=True)
    after, info = kernel.step(point, path, torch.tensor(0.5), create_graph=True)
    (after.log_final + info.log_path + info.log_reversal).sum().backward()
    for parameter in kernel.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("target", [pytest.param(0.4, marks=pytest.mark.slow), 0.8])
@pytest.mark.parametrize("case", thinned(CASES, 2), ids=CASE_IDS)
def test_adaptation_reaches_its_target(case: Case, target: float, rule: AcceptanceName) -> None:
    """Whatever the rule, the target is the acceptance of a Metropolis test; a rate of 0.8 is beyond Barker's own."""
    step_size = StepSize(case.step_size * 0.5, "adapted")
    kernel = make_kernel(case.make(step_size), rule)
    adaptation = StepSizeAdaptation([step_size], target)
    rates = []
    for _ in range(600):
        _, info = run(kernel, standard_normal, torch.randn(100, 1, 5), steps=1)
        adaptation.update(Outcome(info.metropolis_prob, torch.zeros(2, 1, 5)))
        rates.append(info.metropolis_prob.mean())
    assert abs(torch.stack(rates[500:]).mean() - target) < 0.03


def test_adapting_to_barkers_own_acceptance_would_let_the_step_vanish() -> None:
    """It is at most 1/2 on average: with a target above, the step size only falls."""
    step_size = StepSize(0.5, "adapted")
    kernel = make_kernel(CASES[2].make(step_size), "barker")
    adaptation = StepSizeAdaptation([step_size], 0.65)
    for _ in range(600):
        _, info = run(kernel, standard_normal, torch.randn(100, 1, 5), steps=1)
        assert info.accept_prob.mean() < 0.55
        adaptation.update(Outcome(info.accept_prob, torch.zeros(2, 1, 5)))
    assert step_size() < 0.01


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, math.nan])
def test_targets_out_of_range_are_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_accept="):
        StepSizeAdaptation([], target)


class Across(Proposal):
    """To the right by a half, as a map that does not undo itself."""

    is_reversible = False

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        return Proposed(path.evaluate(point.z + 0.5, create_graph=create_graph), torch.zeros_like(point.log_final))


@pytest.mark.parametrize("is_reversible", [False, True])
def test_a_move_over_the_edge_adds_no_mass(is_reversible: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine tenths of the mass of (0, 1) lie in its right half, from where the move leads out: E[w] is 0.9, not 1.8."""

    def target(z: Tensor) -> Tensor:
        mass = torch.where(z < 0.5, 0.2, 1.8)
        return torch.where((z > 0) & (z < 1), mass, 0.0).log().sum(-1)

    monkeypatch.setattr(Across, "is_reversible", is_reversible)  # the wrong claim
    torch.manual_seed(0)
    point, info = run(make_kernel(Across(), "none"), target, torch.rand(100_000, 1, 1), steps=1)
    mean = (point.log_final + info.log_reversal.sum(0)).exp().mean()
    assert (abs(mean - 0.9) < 0.02) != is_reversible


@pytest.mark.parametrize("rule", RULES)
def test_a_wall_leaves_the_gradient_of_a_temperature_finite(rule: AcceptanceName) -> None:
    def walled(z: Tensor) -> Tensor:
        return torch.where(z[..., 0] > 0.0, -math.inf, standard_normal(z))

    beta = torch.tensor(0.5, requires_grad=True)
    path = AnnealedPath(standard_normal, walled, needs_score=False)
    point = path.evaluate(-torch.rand(200, 1, 2), create_graph=True)
    point, info = make_kernel(RandomWalk(StepSize(0.5)), rule).step(point, path, beta, create_graph=True)
    assert info.divergent.any()
    total = (info.log_path + info.log_alpha + info.log_reversal).sum()
    assert total.requires_grad == (rule != "none")
    if total.requires_grad:
        assert torch.isfinite(torch.autograd.grad(total, beta)[0])
