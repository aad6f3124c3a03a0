"""Activation checkpointing of a chain: the graph of a step is not kept for the backward pass, but computed again in it.

What autograd saves in a stretch of the chain is let go of when the stretch is over. The first time a backward pass asks
for some of it, the stretch is computed again, from where it began and with the same random numbers, and what another
stretch had given is let go of. One stretch is there at a time, for one more pass of the chain (on a device other than
the CPU two, where autograd reaches some parameters last).

The graph itself stays that of the first pass: values and gradients are those of a chain that is kept, bit for bit where
operations are deterministic.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import _get_current_function_mode_stack as current_modes  # pyright: ignore[reportPrivateUsage]

from metvae_cli.densities import AnnealedPath
from metvae_cli.errors import RunError

T = TypeVar("T")

_CLOSE = 1e-3
_MOST = 0.99


@runtime_checkable
class MappedMode(Protocol):
    """A mode of torch's, inside of which a tensor stands for those of several runs, as under `torch.vmap`."""

    def place(self) -> Callable[[Callable[[], Tensor]], Tensor]:
        """What calls a function inside of such a mode again, later and from outside, with the random numbers that are
        next now; what it returns is stacked over runs.
        """
        ...


class Recomputation:
    """Computes the stretches of one chain, each of them twice.

    Args:
        path: its `evaluations` do not count the second pass, which is of the gradient and not of the method
        device: where the chain is, and draws
    """

    def __init__(self, path: AnnealedPath, device: torch.device) -> None:
        self.path, self.device = path, device
        self.latest: Callable[[], _Stretch | None] = lambda: None  # weak: a graph, and not this, keeps stretches

    def __call__(self, compute: Callable[[], T], position: Callable[[T], Tensor]) -> T:
        """What `compute` gives, with its graph. position: what of it must come out again, (S, B, D).

        Raises:
            RunError: in the backward pass, if it does not. Seen on a CPU only: elsewhere to ask would be to wait for
                the device
        """
        stretch = _Stretch(self, lambda: position(compute()))
        with stretch.saving():
            found = compute()
        stretch.let_go(position(found))
        return _behind_gate(found)


class _Gate(torch.autograd.Function):
    """The identity, all of whose gradients are there before any goes on.

    No part of a stretch is then reached before what comes after it is done with: a backward pass prefers nodes that
    were made late, and gradients taken on a device are made there, by a count of their own.
    """

    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore
        return gradients

    @staticmethod
    def vmap(info: Any, in_dims: Any, *tensors: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Of stacked tensors, one gate below."""
        return _Gate.apply(*tensors), in_dims


def _behind_gate(found: T) -> T:
    """A tuple of tensors and tuples, what has a gradient of it behind one gate."""
    return _filled(found, iter(_Gate.apply(*_differentiable(found))))  # pyright: ignore[reportArgumentType]


def _filled(part: Any, passed: Iterator[Tensor]) -> Any:
    """The tuple with the next of `passed` in each place of a tensor that has a gradient."""
    if isinstance(part, tuple):
        parts = [_filled(each, passed) for each in part]
        return type(part)(*parts) if hasattr(part, "_fields") else tuple(parts)
    return next(passed) if isinstance(part, Tensor) and part.requires_grad else part


def _differentiable(part: object) -> list[Tensor]:
    if isinstance(part, tuple):
        return [tensor for each in part for tensor in _differentiable(each)]
    return [part] if isinstance(part, Tensor) and part.requires_grad else []


class _Stretch:
    """A stretch of a chain. saved: what autograd saves in it, in order; empty while it is not there."""

    def __init__(self, chain: Recomputation, again: Callable[[], Tensor]) -> None:
        self.chain, self.again = chain, again
        self.surroundings = _Surroundings(chain.device)
        self.saved: list[Tensor] = []
        self.count = 0

    def saving(self) -> saved_tensors_hooks:
        """Inside, what is saved is saved here."""
        return saved_tensors_hooks(self._pack, self._unpack)

    def let_go(self, position: Tensor) -> None:
        """The first pass is over and led to this position, (S, B, D)."""
        self.count, self.position = len(self.saved), position.detach()
        self.saved.clear()

    def _pack(self, tensor: Tensor) -> int:
        self.saved.append(tensor.detach())  # the graph knows where it belongs; to hold that here would be a cycle
        return len(self.saved) - 1

    def _unpack(self, index: int) -> Tensor:
        if not self.saved:
            self._recompute()
        return self.saved[index]

    def _recompute(self) -> None:
        chain, evaluations = self.chain, self.chain.path.evaluations
        if (other := chain.latest()) is not None:
            other.saved.clear()
        chain.latest = weakref.ref(self)
        with torch.enable_grad(), self.saving():
            share = self.surroundings.call(lambda: _agreement(self.again().detach(), self.position))
        chain.path.evaluations = evaluations
        if len(self.saved) != self.count or (chain.device.type == "cpu" and share.min().item() < _MOST):
            raise RunError(
                "trainer.checkpoint_chain=true: a step of the chain came out otherwise when it was computed again; "
                "does a class in plugins=[...] draw random numbers in another way than torch's, or remember "
                "something between steps? set it to false"
            )


class _Surroundings:
    """Random streams, and what changes torch's functions, as they are now."""

    def __init__(self, device: torch.device) -> None:
        self._modules = [torch.random, *([] if device.type == "cpu" else [torch.get_device_module(device)])]
        self._streams = [module.get_rng_state() for module in self._modules]
        modes = current_modes()  # draws for a whole batch, runs side by side: backward passes happen outside of them
        self._modes = [mode for mode in modes if not isinstance(mode, MappedMode)]
        self._places = [mode.place() for mode in modes if isinstance(mode, MappedMode)]

    def call(self, function: Callable[[], Tensor]) -> Tensor:
        """What a function returns when all is so again, of each run if several are mapped over."""
        with self.restored():
            for place in self._places:
                function = partial(place, function)
            return function()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Inside they are so again; afterwards what they were before."""
        with ExitStack() as stack:
            for mode in self._modes:
                if mode not in current_modes():
                    stack.enter_context(mode)
            before = [module.get_rng_state() for module in self._modules]
            self._set(self._streams)
            try:
                yield
            finally:
                self._set(before)

    def _set(self, streams: list[Tensor]) -> None:
        for module, state in zip(self._modules, streams, strict=True):
            module.set_rng_state(state)


def _agreement(found: Tensor, expected: Tensor) -> Tensor:
    """The share of two positions that is one up to rounding, (): not all, since rounding may turn a decision."""
    near = (found - expected).abs() <= _CLOSE * (1 + expected.abs())  # torch.isclose cannot be mapped over
    same = near | (found == expected) | (found.isnan() & expected.isnan())
    return same.float().mean()
