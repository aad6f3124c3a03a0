"""Independent proposals against their densities in closed form."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from metvae_cli.bijections import TransformName
from metvae_cli.densities import AnnealedPath, Frame
from metvae_cli.kernels.independent import Independent, IndependentFlow
from tests.kernels.cases import stir
from tests.targets import normal_log_prob

pytestmark = pytest.mark.usefixtures("double")

DIM, CONTEXT = 3, 4
ONE = torch.tensor(1.0)
LOCATION = torch.linspace(-1, 1, 2 * DIM, dtype=torch.float64).view(2, DIM)
FRAME = Frame(LOCATION, 1.0 + LOCATION.square())
KNOWN = torch.linspace(-2, 2, 2 * CONTEXT, dtype=torch.float64).view(2, CONTEXT)


def standard_normal(z: Tensor) -> Tensor:
    return normal_log_prob(z, 0.0, 1.0).sum(-1)


def make_path() -> AnnealedPath:
    return AnnealedPath(standard_normal, standard_normal, needs_score=False, frame=FRAME, context=KNOWN)


def test_an_independent_proposal_reports_the_ratio_of_its_densities() -> None:
    def broad(z: Tensor) -> Tensor:
        return normal_log_prob(z, 0.5, 2.0).sum(-1)

    path = AnnealedPath(
        broad, standard_normal, needs_score=False, draw_initial=lambda shape: 0.5 + 2 * torch.randn(*shape, 2, DIM)
    )
    z = torch.randn(5, 2, DIM)
    proposed = Independent().propose(path.evaluate(z, create_graph=False), path, ONE, create_graph=False)
    assert proposed.point.z.shape == z.shape
    assert torch.allclose(proposed.log_correction, broad(z) - broad(proposed.point.z))


@pytest.mark.parametrize("condition_on_x", [False, True])
def test_an_independent_flow_reports_the_ratio_of_its_densities(condition_on_x: bool) -> None:
    """An affine map of N(0, I) is Gaussian; what it does to 0 and 1 are its mean and scale."""
    proposal, path = IndependentFlow(DIM, CONTEXT, "affine", condition_on_x=condition_on_x), make_path()
    stir(proposal)
    mean = proposal.bijection(torch.zeros(1, 2, DIM), path.context if condition_on_x else None)[0]
    scale = proposal.bijection(torch.ones(1, 2, DIM), path.context if condition_on_x else None)[0] - mean
    density = Normal(path.from_frame(mean), scale * FRAME.scale)
    z = torch.randn(20_000, 2, DIM)
    proposed = proposal.propose(path.evaluate(z, create_graph=False), path, ONE, create_graph=False)
    expected = (density.log_prob(z) - density.log_prob(proposed.point.z)).sum(-1)
    assert torch.allclose(proposed.log_correction, expected)
    standardised = (proposed.point.z - density.loc) / density.scale
    assert standardised.mean(0).abs().max() < 5 / math.sqrt(len(z))
    assert (standardised.var(0) - 1).abs().max() < 5 * math.sqrt(2 / len(z))


@pytest.mark.parametrize("transform", get_args(TransformName))
def test_every_parameter_of_an_independent_flow_gets_a_gradient(transform: TransformName) -> None:
    proposal, path = IndependentFlow(DIM, CONTEXT, transform, hidden=(8,), condition_on_x=True), make_path()
    proposed = proposal.propose(
        path.evaluate(torch.randn(100, 2, DIM), create_graph=True), path, ONE, create_graph=True
    )
    (proposed.point.log_final + proposed.log_correction).sum().backward()
    for name, parameter in proposal.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_what_a_path_does_not_say_is_asked_for() -> None:
    path = AnnealedPath(standard_normal, standard_normal, needs_score=False)
    point = path.evaluate(torch.zeros(1, 1, DIM), create_graph=False)
    for proposal, message in (
        (IndependentFlow(DIM, CONTEXT, condition_on_x=True), "condition_on_x=true"),
        (Independent(), "draw_initial"),
    ):
        with pytest.raises(ValueError, match=message):
            proposal.propose(point, path, ONE, create_graph=False)
