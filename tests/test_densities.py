"""The annealed path: values, scores by autograd against formulas, and what is kept of the graph."""

import pytest
import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Point, select

pytestmark = pytest.mark.usefixtures("double")


def make_path(scale: Tensor, *, needs_score: bool = True, detach_forces: bool = False) -> AnnealedPath:
    return AnnealedPath(
        lambda z: -0.5 * z.square().sum(-1),
        lambda z: -0.25 * scale * (z**4).sum(-1),
        needs_score=needs_score,
        detach_forces=detach_forces,
    )


def test_values_and_scores() -> None:
    path, z = make_path(torch.tensor(3.0)), torch.randn(4, 5, 2)
    point = path.evaluate(z, create_graph=False)
    beta = torch.tensor(0.3)
    assert torch.allclose(path.log_prob(point, beta), -0.35 * z.square().sum(-1) - 0.225 * (z**4).sum(-1))
    assert torch.allclose(path.score(point, beta), -0.7 * z - 0.9 * z**3)
    assert path.evaluations == 20


def test_the_graph_reaches_position_and_parameters() -> None:
    """The gradient of a score is a second derivative."""
    scale, z = torch.tensor(3.0, requires_grad=True), torch.randn(1, 1, 2, requires_grad=True)
    point = make_path(scale).evaluate(z, create_graph=True)
    assert point.score_final is not None
    in_z, in_scale = torch.autograd.grad(point.score_final.sum(), (z, scale))
    assert torch.allclose(in_z, -9 * z**2)
    assert torch.allclose(in_scale, -(z**3).sum())


def test_detached_forces_keep_values_differentiable() -> None:
    scale, z = torch.tensor(3.0, requires_grad=True), torch.randn(1, 1, 2, requires_grad=True)
    point = make_path(scale, detach_forces=True).evaluate(z, create_graph=True)
    assert point.score_final is not None
    assert not point.score_final.requires_grad
    assert torch.allclose(torch.autograd.grad(point.log_final.sum(), z)[0], -3 * z**3)


@pytest.mark.parametrize("needs_score", [True, False])
def test_nothing_is_kept_without_a_graph(needs_score: bool) -> None:
    scale, z = torch.tensor(3.0, requires_grad=True), torch.randn(2, 3, 2, requires_grad=True)
    point = make_path(scale, needs_score=needs_score).evaluate(z.detach(), create_graph=False)
    assert not any(entry.requires_grad for entry in point if entry is not None)


def test_a_path_without_scores_says_so() -> None:
    path = make_path(torch.tensor(1.0), needs_score=False)
    point = path.evaluate(torch.zeros(1, 1, 2), create_graph=False)
    assert point.score_final is None
    with pytest.raises(ValueError, match="needs_score"):
        path.score(point, torch.tensor(1.0))


def test_select_chooses_rows() -> None:
    one, other = Point(torch.ones(2, 2, 3), torch.ones(2, 2), torch.ones(2, 2)), None
    other = Point(torch.zeros(2, 2, 3), torch.zeros(2, 2), torch.zeros(2, 2))
    chosen = torch.tensor([[True, False], [False, True]])
    picked = select(chosen, one, other)
    assert torch.equal(picked.log_final, chosen.double())
    assert torch.equal(picked.z, chosen.double()[..., None].expand(2, 2, 3))
    assert picked.score_final is None
