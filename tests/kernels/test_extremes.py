"""What `test_steps.py` leaves out: kernels that keep a momentum, scores that are no numbers, bad starts, sizes of one.

A chain is a list of kernels: the steps of the Hamiltonian VAE share their temperatures.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Point
from metvae_cli.kernels.base import Kernel, StepInfo
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.partial_hamiltonian import PartialHamiltonian
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.tempered_hamiltonian import TemperedHamiltonian
from metvae_cli.samplers.assembly import AcceptanceName, make_kernel
from tests.kernels.cases import EVERY_CASE, Case
from tests.targets import normal_log_prob

RULES: list[AcceptanceName] = ["metropolis", "barker", "none"]
STEPS = 5
Density = Callable[[Tensor], Tensor]


class Chain(NamedTuple):
    """make: the kernels for positions in R^dim. least_dim: of positions that it moves. keeps: a momentum."""

    make: Callable[[int, float | None], Sequence[Kernel]]
    least_dim: int = 1
    keeps: bool = False


def partial(persistence: float, rule: AcceptanceName) -> Chain:
    def make(dim: int, step_size: float | None) -> Sequence[Kernel]:
        del dim
        return [make_kernel(PartialHamiltonian(StepSize(step_size or 0.6), 2, persistence), rule)] * STEPS

    return Chain(make, keeps=True)


def tempered(dim: int, step_size: float | None) -> Sequence[Kernel]:
    del dim
    sizes = [StepSize(step_size or 0.6) for _ in range(STEPS)]
    return [make_kernel(proposal, "none") for proposal in TemperedHamiltonian(STEPS).proposals(sizes)]


def of_the_table(name: str, rule: AcceptanceName) -> Chain:
    (case,) = [case for case in EVERY_CASE if case.name == name]

    def make(dim: int, step_size: float | None) -> Sequence[Kernel]:
        sized = step_size is not None and isinstance(case, Case)
        proposal = case.make(StepSize(step_size)) if sized else case.proposal(dim)  # pyright: ignore
        return [make_kernel(proposal, rule)] * STEPS

    return Chain(make, 2 if "flow" in name else 1)


KEEPING = {
    f"partial {persistence} {rule}": partial(persistence, rule) for persistence in (1e-6, 0.5, 0.9) for rule in RULES
}
KEEPING["tempered"] = Chain(tempered, keeps=True)
TABLE = {f"{case.name} {rule}": of_the_table(case.name, rule) for case in EVERY_CASE for rule in RULES}
EVERY = KEEPING | TABLE


def standard_normal(z: Tensor) -> Tensor:
    return normal_log_prob(z, 0.0, 1.0).sum(-1)


def wide_normal(z: Tensor) -> Tensor:
    return normal_log_prob(z, 0.0, 3.0).sum(-1)


def run(kernels: Sequence[Kernel], log_prob: Density, z: Tensor) -> tuple[list[Point], StepInfo]:
    """The points of a chain and its records, (K, S, B)."""
    path = AnnealedPath(
        wide_normal,
        log_prob,
        needs_score=kernels[0].proposal.needs_score,
        draw_initial=lambda shape: 3 * torch.randn(*shape, *z.shape[1:]),
    )
    points, infos = [path.evaluate(z, create_graph=False)], []
    with torch.no_grad():
        for number, kernel in enumerate(kernels, start=1):
            point, info = kernel.step(points[-1], path, number / len(kernels), create_graph=False)
            points.append(point)
            infos.append(info)
    columns = zip(*(info[:-1] for info in infos), strict=True)
    return points, StepInfo(*(torch.stack(entries) for entries in columns))  # pyright: ignore[reportArgumentType]


def of_moves_made(kernels: Sequence[Kernel], info: StepInfo) -> StepInfo:
    """The records, less the -inf of moves that were not made and do not undo themselves: their weights are 0."""
    if kernels[0].is_adjusted or kernels[0].proposal.is_reversible:
        return info
    assert (info.log_path[info.divergent] == -math.inf).all()
    kept = {name: getattr(info, name).masked_fill(info.divergent, 0.0) for name in ("log_path", "log_reversal")}
    return info._replace(**kept)


def is_sound(points: Sequence[Point], info: StepInfo, rows: Tensor | slice = slice(None)) -> bool:
    """Whether nothing that is no number is in the chains of some data."""
    tensors = [entry[:, rows] for point in points for entry in point if entry is not None]
    tensors += [entry[:, :, rows] for entry in info[:-1] if isinstance(entry, Tensor) and entry.is_floating_point()]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", KEEPING)
def test_what_is_not_finite_is_rejected_by_kernels_that_keep_a_momentum(name: str, bad: float) -> None:
    def walled(z: Tensor) -> Tensor:
        return torch.where(z[..., 0] > 0.5, torch.full_like(z[..., 0], bad), standard_normal(z))

    kernels = EVERY[name].make(2, None)
    points, info = run(kernels, walled, -torch.rand(200, 1, 2))
    assert is_sound(points, of_moves_made(kernels, info))
    assert (points[-1].z[..., 0] <= 0.5).all()
    assert info.divergent.any()
    assert not (info.divergent & info.accepted).any()


@pytest.mark.parametrize("name", [name for name in EVERY if EVERY[name].make(2, None)[0].proposal.needs_score])
def test_a_score_that_is_no_number_is_rejected(name: str) -> None:
    """The density is finite beyond the wall, its gradient is not."""

    def walled(z: Tensor) -> Tensor:
        room = 0.5 - z[..., 0]
        return standard_normal(z) + 0 * (room + room.abs()).sqrt()

    beyond = torch.full((1, 1, 2), 0.7, requires_grad=True)
    (score,) = torch.autograd.grad(walled(beyond).sum(), beyond)
    assert torch.isfinite(walled(beyond)).all()
    assert torch.isnan(score).any()
    kernels = EVERY[name].make(2, None)
    points, info = run(kernels, walled, -torch.rand(200, 1, 2))
    assert is_sound(points, of_moves_made(kernels, info))
    assert info.divergent.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", EVERY)
def test_a_start_that_is_no_number_is_told_and_leaves_the_others(name: str, bad: float) -> None:
    kernels, start = EVERY[name].make(2, None), torch.randn(3, 4, 2)
    torch.manual_seed(1)
    expected, info = run(kernels, standard_normal, start)
    torch.manual_seed(1)
    found, told = run(kernels, standard_normal, start.index_fill(1, torch.tensor([2]), bad))
    others = torch.tensor([0, 1, 3])
    assert is_sound(found, told, others)
    for one, other in zip(expected, found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or torch.equal(a[:, others], b[:, others])
    for a, b in zip(info[:-1], told[:-1], strict=True):
        assert isinstance(a, Tensor)
        assert isinstance(b, Tensor)
        assert torch.equal(a[:, :, others], b[:, :, others])
    assert told.divergent[:, :, 2].all()
    assert not told.accepted[:, :, 2].any()
    assert (told.accept_prob[:, :, 2] == 0).all()


@pytest.mark.parametrize("step_size", [1e-12, 1e6])
@pytest.mark.parametrize("name", KEEPING)
def test_extreme_step_sizes_leave_finite_chains_with_a_momentum(name: str, step_size: float) -> None:
    kernels = EVERY[name].make(2, step_size)
    points, info = run(kernels, standard_normal, torch.randn(20, 1, 2))
    assert is_sound(points, of_moves_made(kernels, info))


@pytest.mark.parametrize("name", EVERY)
def test_one_dimension_one_datum_and_one_chain(name: str) -> None:
    chain = EVERY[name]
    points, info = run(chain.make(chain.least_dim, None), standard_normal, torch.randn(1, 1, chain.least_dim))
    assert is_sound(points, info)
    assert info.accepted.shape == (STEPS, 1, 1)


@pytest.mark.parametrize("name", EVERY)
def test_the_same_seed_has_the_same_bits_and_another_has_not(name: str) -> None:
    kernels, start = EVERY[name].make(2, None), torch.randn(3, 4, 2)
    ends = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        points, info = run(kernels, standard_normal, start)
        ends.append([points[-1].z, info.log_path, info.accept_prob])
    assert all(torch.equal(a, b) for a, b in zip(ends[0], ends[1], strict=True))
    assert not torch.equal(ends[0][0], ends[2][0])


def test_a_chain_that_lets_bad_numbers_in_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge of all the above: a kernel that takes what is not finite."""

    def walled(z: Tensor) -> Tensor:
        return torch.where(z[..., 0] > 0.5, torch.full_like(z[..., 0], math.nan), standard_normal(z))

    kernel = make_kernel(Hamiltonian(StepSize(0.6)), "none")
    monkeypatch.setattr("metvae_cli.kernels.unadjusted.select", lambda taken, this, other: this)
    assert not is_sound(*run([kernel] * STEPS, walled, -torch.rand(200, 1, 2)))
