"""Affine coupling layers run forwards, backwards, or each row in a direction of its own.

A layer leaves one half of the coordinates, the even or the odd ones, as they are, and moves the other half by what a
network makes of them:

    y = x e^s + t        x = (y - t) e^-s        log |det| = +- sum s

Either direction asks the network once, at the half that stays; Zuko, whose modules hold the weights, asks twice for an
inverse with its log-determinant. Rows that go different ways go together (`coupling_directed.py`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from zuko.lazy import LazyComposedTransform

from metvae_cli.coupling_directed import LARGEST_LOG_SCALE, run_directed


class Coupling(NamedTuple):
    """One layer. stays: 0 if the even coordinates stay, 1 if the odd ones do; its network's weights and biases."""

    stays: int
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]

    def parameters(self) -> list[Tensor]:
        """Weight and bias of each of the network's layers."""
        return [part for pair in zip(self.weights, self.biases, strict=True) for part in pair]


def couplings(transform: LazyComposedTransform) -> list[Coupling]:
    """The layers of a RealNVP of Zuko's, of an even dimension: they alternate, and the even coordinates stay first."""
    found = []
    for index, layer in enumerate(cast(Any, transform.transforms)):
        linear = list(layer.hyper)[::2]
        found.append(Coupling(index % 2, [part.weight for part in linear], [part.bias for part in linear]))
    return found


def forward(layers: Sequence[Coupling], w: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """T(w), for w (..., D) and a context that broadcasts against it, (..., C), and log |det dT/dw|, (...)."""
    halves, log_det = _split(w), w.new_zeros(())
    for layer in layers:
        shift, log_scale = _affine(_network(layer, halves[layer.stays], context))
        moved = torch.addcmul(shift, halves[1 - layer.stays], log_scale.exp())
        halves, log_det = _placed(halves, layer.stays, moved), log_det + log_scale.sum(-1)
    return _merge(halves), log_det


def inverse(layers: Sequence[Coupling], w: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """The inverse of T at w, and its log-determinant there."""
    halves, log_det = _split(w), w.new_zeros(())
    for layer in reversed(layers):
        shift, log_scale = _affine(_network(layer, halves[layer.stays], context))
        moved = (halves[1 - layer.stays] - shift) * (-log_scale).exp()
        halves, log_det = _placed(halves, layer.stays, moved), log_det - log_scale.sum(-1)
    return _merge(halves), log_det


def directed(layers: Sequence[Coupling], w: Tensor, direction: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """T^v w and its log-determinant, for w (S, B, D) and v, +1 or -1, (S, B, 1)."""
    told = None if context is None else context.expand(*w.shape[:-1], -1)
    return run_directed(w, direction, told, [layer.parameters() for layer in layers])


Halves = tuple[Tensor, Tensor]  # even and odd coordinates, (..., D / 2)


def _split(w: Tensor) -> Halves:
    even, odd = w.unflatten(-1, (-1, 2)).unbind(-1)
    return even, odd


def _merge(halves: Halves) -> Tensor:
    return torch.stack(halves, -1).flatten(-2)


def _placed(halves: Halves, stays: int, moved: Tensor) -> Halves:
    return (halves[0], moved) if stays == 0 else (moved, halves[1])


def _affine(output: Tensor) -> tuple[Tensor, Tensor]:
    """t and s of each coordinate that moves, (..., D / 2), from a network's output, (..., D)."""
    shift, raw = output.unflatten(-1, (-1, 2)).unbind(-1)
    return shift, raw / (raw.abs() * (1 / LARGEST_LOG_SCALE) + 1)


def _told(w: Tensor, context: Tensor | None) -> Tensor:
    return w if context is None else torch.cat([w, context.expand(*w.shape[:-1], -1)], -1)


def _network(layer: Coupling, w: Tensor, context: Tensor | None) -> Tensor:
    """(..., D / 2) -> (..., D)."""
    value = _told(w, context)
    for place, (weight, bias) in enumerate(zip(layer.weights, layer.biases, strict=True)):
        value = torch.nn.functional.linear(torch.relu(value) if place else value, weight, bias)
    return value
