"""A flow of affine couplings in which each row goes its own way, as one function of autograd.

In every stage forwards rows are moved by one layer, y = x e^s + t, backwards rows by another, x = (y - t) e^-s, counted
from the other end. With v = +1 or -1,

    moved = t (v > 0 ? 1 : -e^(v s)) + moves e^(v s),        log |det| = sum v s

where t and s come from the network of the row's own layer. Both networks see all rows, as batched products: nobody
looks at which row goes where. What autograd would record of the many small operations is left out.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGEST_LOG_SCALE = -math.log(1e-3)  # zuko's: s = raw / (1 + |raw| / this)


def run_directed(
    w: Tensor, direction: Tensor, context: Tensor | None, networks: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, Tensor]:
    """T^v w, (S, B, D), and its log-determinant, (S, B). Differentiable once.

    Args:
        w: (S, B, D), of an even D
        direction: v, (S, B, 1); no gradient passes to it
        context: what the networks are told beside the coordinates that stay, (S, B, C)
        networks: of each layer of the flow: weight (out, in) and bias (out,) of each layer of its network. They
            alternate; the even coordinates stay first
    """
    parameters = [part for network in networks for part in network]
    moved, log_det, *_ = _Directed.apply(w, direction, context, len(networks), *parameters)
    return moved, log_det


class _Stage(NamedTuple):
    """What the backward pass needs of a stage; rows are (S B, .), what moves and how (S, B, D / 2)."""

    told: Tensor
    moves: Tensor
    shift: Tensor
    squash: Tensor
    factor: Tensor
    inner: Sequence[Tensor]  # after each rectifier of both networks, (2, S B, width)


class _Ways(NamedTuple):
    """v of each row, and what follows of it: 1 or 0, and 0 or -1; (S, B, 1)."""

    direction: Tensor
    ahead: Tensor
    behind: Tensor


class _Directed(torch.autograd.Function):
    """What the backward pass needs is handed out beside the result, as functorch wants it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor, direction: Tensor, context: Tensor | None, count: int, *parameters: Tensor) -> Any:
        ways = _ways(direction)
        stays, moves = _first_half(w, ways, count)
        log_det, kept = w.new_zeros(()), []
        for index in range(count):
            told = stays if context is None else torch.cat([stays, context], -1)
            stage, moved, gained = _run_stage(told, moves, ways, *_of_both(parameters, index, count))
            kept += [*stage[:-1], *stage.inner]
            stays, moves, log_det = moved, stays, log_det + gained
        return _whole(*_in_order(stays, moves, count), ways, count), log_det, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, direction, context, count, *parameters = inputs
        _, _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)
        ctx.count, ctx.size, ctx.has_context = count, len(parameters), context is not None
        ctx.save_for_backward(direction, *parameters, *kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        count, (direction, *rest) = ctx.count, ctx.saved_tensors
        ways = _ways(direction)
        parameters, stages = rest[: ctx.size], _stages(rest[ctx.size :], count)
        half = stages[0].moves.shape[-1]
        bar = direction.new_zeros(*direction.shape[:-1], 2 * half) if cotangents[0] is None else cotangents[0]
        signed_bar = 0.0 if cotangents[1] is None else cotangents[1][..., None]
        stays_bar, moves_bar = _in_order(*_first_half(bar, ways, count), count)
        context_bar: list[Tensor] = []
        found: list[list[Tensor]] = []
        for index in reversed(range(count)):
            weights, _ = _of_both(parameters, index, count)
            told_bar, below_bar, gradients = _stage_backward(stages[index], weights, stays_bar, signed_bar, ways)
            stays_bar, moves_bar = moves_bar + told_bar[..., :half], below_bar
            context_bar.append(told_bar[..., half:])
            found.insert(0, gradients)
        # A layer is at work for either direction, in different stages.
        both = zip(found, reversed(found), strict=True)
        by_layer = [one[0] + other[1] for pair in both for one, other in zip(*pair, strict=True)]
        told = torch.stack(context_bar).sum(0) if ctx.has_context else None
        return _whole(stays_bar, moves_bar, ways, count), None, told, None, *by_layer


def _ways(direction: Tensor) -> _Ways:
    ahead = 0.5 * direction + 0.5
    return _Ways(direction, ahead, ahead - 1)


def _run_stage(
    told: Tensor, moves: Tensor, ways: _Ways, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[_Stage, Tensor, Tensor]:
    """What is kept, where the coordinates go that move, and the log-determinant."""
    rows = told.flatten(0, 1)
    value, inner = rows.expand(2, *rows.shape), []
    for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        value = torch.bmm(value, weight.mT) + bias[:, None]  # at these sizes cheaper than as one operation
        if place < len(weights) - 1:
            value = torch.relu(value)
            inner.append(value)
    by_ahead, by_back = value.unflatten(1, moves.shape[:2]).unbind()
    shift, raw = torch.lerp(by_back, by_ahead, ways.ahead).unflatten(-1, (-1, 2)).unbind(-1)
    squash = (raw.abs() * (1 / LARGEST_LOG_SCALE) + 1).reciprocal()
    signed = ways.direction * raw * squash
    factor = signed.exp()
    moved = torch.addcmul(torch.addcmul(ways.ahead, ways.behind, factor) * shift, moves, factor)
    return _Stage(rows, moves, shift, squash, factor, inner), moved, signed.sum(-1)


def _stage_backward(
    stage: _Stage, weights: Sequence[Tensor], moved_bar: Tensor, signed_bar: Tensor | float, ways: _Ways
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradients in what the networks were told, in what moves, and in weight and bias of each layer of both."""
    moves_bar = moved_bar * stage.factor
    shift_bar = moved_bar * torch.addcmul(ways.ahead, ways.behind, stage.factor)
    signed_bar = moves_bar * torch.addcmul(stage.moves, ways.behind, stage.shift) + signed_bar
    raw_bar = signed_bar * ways.direction * stage.squash.square()
    output_bar = torch.stack([shift_bar, raw_bar], -1).flatten(-2)
    by_ahead = output_bar * ways.ahead
    down = torch.stack([by_ahead, output_bar - by_ahead]).flatten(1, 2)
    below = [stage.told.expand(2, *stage.told.shape), *stage.inner]
    gradients: list[Tensor] = []
    for place in reversed(range(len(weights))):
        gradients = [torch.bmm(down.mT, below[place]), down.sum(1), *gradients]
        down = torch.bmm(down, weights[place])
        if place:
            down = down * below[place].sign()  # 1 where the rectifier was open, faster than by a mask
    to_ahead, to_back = down.unbind()
    return (to_ahead + to_back).unflatten(0, ways.direction.shape[:-1]), moves_bar, gradients


def _of_both(parameters: Sequence[Tensor], index: int, count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Weights (2, out, in) and biases (2, out) of the two networks that are at work in a stage: ahead, and back."""
    size = len(parameters) // count
    ahead, back = parameters[index * size :][:size], parameters[(count - 1 - index) * size :][:size]
    stacked = [torch.stack(pair) for pair in zip(ahead, back, strict=True)]
    return stacked[::2], stacked[1::2]


def _stages(kept: Sequence[Tensor], count: int) -> list[_Stage]:
    size = len(kept) // count
    parts = [kept[index * size :][:size] for index in range(count)]
    return [_Stage(*part[:5], part[5:]) for part in parts]  # pyright: ignore[reportCallIssue]


def _first_half(w: Tensor, ways: _Ways, count: int) -> tuple[Tensor, Tensor]:
    """The half that stays first, and the other: even and odd coordinates; of an even count swapped for the way back."""
    even, odd = w.unflatten(-1, (-1, 2)).unbind(-1)
    return (even, odd) if count % 2 else (torch.lerp(odd, even, ways.ahead), torch.lerp(even, odd, ways.ahead))


def _whole(first: Tensor, second: Tensor, ways: _Ways, count: int) -> Tensor:
    """The reverse of `_first_half`."""
    if count % 2 == 0:
        first, second = torch.lerp(second, first, ways.ahead), torch.lerp(first, second, ways.ahead)
    return torch.stack([first, second], -1).flatten(-2)


def _in_order(stays: Tensor, moves: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """After the last stage: the half that stayed first, and the other (and back again)."""
    return (moves, stays) if count % 2 else (stays, moves)
