"""Affine couplings in closed form, against the library whose weights they use."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from metvae_cli import coupling
from metvae_cli.bijections import Bijection
from tests.kernels.cases import stir

DIM, CONTEXT = 6, 3


def make(layers: int, context_dim: int) -> Bijection:
    bijection = Bijection(DIM, context_dim, "realnvp", layers, (8, 5)).double()
    stir(bijection)
    assert bijection.couples
    return bijection


def by_zuko(bijection: Bijection, w: Tensor, context: Tensor | None, *, back: bool) -> tuple[Tensor, Tensor]:
    transform = cast(Any, bijection.map(context))
    return (transform.inv if back else transform).call_and_ladj(w)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_equals_zuko_in_each_direction_with_its_gradient(layers: int, told: bool) -> None:
    bijection = make(layers, CONTEXT if told else 0)
    w = torch.randn(4, 5, DIM, dtype=torch.float64, requires_grad=True)
    context = torch.randn(5, CONTEXT, dtype=torch.float64, requires_grad=True) if told else None
    direction = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)[:, None, None].expand(4, 5, 1).clone()
    direction[0, 3:] = -1.0
    ahead, back = by_zuko(bijection, w, context, back=False), by_zuko(bijection, w, context, back=True)
    both = (torch.where(direction > 0, ahead[0], back[0]), torch.where(direction[..., 0] > 0, ahead[1], back[1]))
    inputs = [w, *([] if context is None else [context]), *bijection.parameters()]
    for found, expected in (
        (bijection(w, context), ahead),
        (bijection.inverse(w, context), back),
        (bijection.directed(w, direction, context), both),
    ):
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-11, atol=1e-12)
        losses = [(moved.sin() * log_det.cos()[..., None]).sum() for moved, log_det in (found, expected)]
        gradients = [torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True) for loss in losses]
        for one, other in zip(*gradients, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, rtol=1e-9, atol=1e-11)


def test_layers_in_the_wrong_order_are_seen() -> None:
    bijection = make(2, 0)
    w = torch.randn(4, 5, DIM, dtype=torch.float64)
    layers = coupling.couplings(cast(Any, bijection.map))
    moved, _ = coupling.forward(layers[::-1], w, None)
    assert not torch.allclose(moved, by_zuko(bijection, w, None, back=False)[0], atol=1e-3)


@pytest.mark.parametrize("dim", [1, 5])
def test_odd_dimensions_are_left_to_zuko(dim: int) -> None:
    bijection = Bijection(dim, 0, "realnvp", 2, (4,))
    assert not bijection.couples
    moved, log_det = bijection(torch.randn(3, dim))
    back, undone = bijection.inverse(moved)
    assert torch.allclose(bijection(back)[0], moved, atol=1e-5)
    assert torch.allclose(log_det, -undone, atol=1e-5)
