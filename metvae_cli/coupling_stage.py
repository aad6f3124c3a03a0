"""A stage of affine coupling in which each row goes its own way, as one function of autograd.

Forwards rows are moved by one layer, y = x e^s + t, backwards rows by another, x = (y - t) e^-s. With v = +1 or -1,

    moved = t (v > 0 ? 1 : -e^(v s)) + moves e^(v s),        log |det| = sum v s

where t and s come from the network of the row's own layer. Both networks see all rows, as batched products; the many
small operations around them, and what autograd would record of each, are left out.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGEST_LOG_SCALE = -math.log(1e-3)  # zuko's: s = raw / (1 + |raw| / this)


def both_ways(
    told: Tensor, moves: Tensor, direction: Tensor, ahead: Sequence[Tensor], back: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Where the coordinates go that move, (S, B, D / 2), and the log-determinant, (S, B). Differentiable once.

    Args:
        told: what the networks are told: the coordinates that stay, with a context if there is one, (S, B, C)
        moves: those that move, (S, B, D / 2)
        direction: v, (S, B, 1)
        ahead, back: weight (out, in) and bias (out,) of each layer of the network for rows that go forwards, backwards
    """
    moved, log_det, *_ = _BothWays.apply(told, moves, direction, *ahead, *back)
    return moved, log_det


class _BothWays(torch.autograd.Function):
    """Rows (N, .) of both networks are (2, N, .). What the backward pass needs is handed out, as functorch wants it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(told: Tensor, moves: Tensor, direction: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        rows = told.flatten(0, 1)
        values = [rows.expand(2, *rows.shape)]
        weights, biases = _of_both(parameters)
        for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            value = torch.baddbmm(bias[:, None], values[-1], weight.mT)
            values.append(torch.relu(value) if place < len(weights) - 1 else value)
        by_ahead, by_back = values.pop().unflatten(1, moves.shape[:2]).unbind()
        shift, raw = torch.where(direction > 0, by_ahead, by_back).unflatten(-1, (-1, 2)).unbind(-1)
        squash = (raw.abs() * (1 / LARGEST_LOG_SCALE) + 1).reciprocal()
        signed = direction * raw * squash
        factor = signed.exp()
        ahead = 0.5 * direction + 0.5  # 1 or 0
        share = torch.addcmul(ahead, ahead - 1, factor)
        moved = torch.addcmul(share * shift, moves, factor)
        return moved, signed.sum(-1), shift, squash, factor, share, *weights, *values[1:]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        told, moves, direction, *parameters = inputs
        _, _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)
        ctx.depth = len(parameters) // 4
        ctx.save_for_backward(told, moves, direction, *kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        told, moves, direction, shift, squash, factor, share, *rest = ctx.saved_tensors
        weights, inner = rest[: ctx.depth], rest[ctx.depth :]
        moved_bar, log_det_bar = cotangents[:2]
        signed_bar = 0.0 if log_det_bar is None else log_det_bar[..., None]
        moves_bar, shift_bar = None, torch.zeros_like(shift)
        if moved_bar is not None:
            moves_bar = moved_bar * factor
            shift_bar = moved_bar * share
            signed_bar = moves_bar * (moves + (0.5 * direction - 0.5) * shift) + signed_bar
        raw_bar = signed_bar * direction * squash.square()
        down = torch.stack([shift_bar, raw_bar], -1).flatten(-2).flatten(0, 1)
        forwards = 0.5 * direction.flatten(0, 1) + 0.5
        down = torch.stack([forwards, 1 - forwards]) * down
        rows = told.flatten(0, 1)
        below = [rows.expand(2, *rows.shape), *inner]
        found: list[Tensor] = []  # of each layer: both weights, both biases
        for place in reversed(range(ctx.depth)):
            found = [*torch.bmm(down.mT, below[place]).unbind(), *down.sum(1).unbind(), *found]
            down = torch.bmm(down, weights[place])
            if place:
                down = down * below[place].sign()  # 1 where the rectifier was open, faster than by a mask
        told_bar = down.sum(0).view_as(told)
        return told_bar, moves_bar, None, *found[::2], *found[1::2]


def _of_both(parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights (2, out, in) and biases (2, out) of each layer."""
    half = len(parameters) // 2
    stacked = [torch.stack(pair) for pair in zip(parameters[:half], parameters[half:], strict=True)]
    return stacked[::2], stacked[1::2]
