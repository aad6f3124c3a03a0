"""What `torch.vmap` lacks for objectives: scores by autograd inside, and random numbers of each run's own stream.

Several runs of one configuration are one program if their parameters are stacked and `torch.vmap` maps over the first
dimension. Inside, a tensor stands for those of all runs, and autograd records what is done to the stacked tensors
below. What an objective asks of autograd is therefore answered there, where gradients of different runs do not mix:

    torch.autograd.grad, Tensor.requires_grad, Tensor.requires_grad_

Draws that fill a shape are drawn for one run after another, each from its own stream, in the order in which a run alone
draws them. Values that steer what is done cannot be looked at: they differ between runs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from metvae_cli.training.streams import Stream
from metvae_cli.training.whole_batch_draws import REFUSED

# Given the stacked tensors below and where their runs are (None: it is the same for all), what stands for the result.
_Below = Callable[[list[Tensor], list[int | None]], tuple[Any, Any]]


# Given a function of no arguments, what it returns, stacked over runs.
Again = Callable[[Callable[[], Tensor]], Tensor]


class _Stacked(torch.autograd.Function):
    """Hands the stacked tensors below to a function; `torch.vmap` calls the rule that is named after it."""

    @staticmethod
    def forward(below: _Below, *tensors: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Of tensors that are the same for all runs."""
        return below(list(tensors), [None] * len(tensors))[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: autograd records what the function does below."""

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: Any, below: _Below, *tensors: Tensor
    ) -> Any:
        """Of stacked tensors."""
        return below(list(tensors), list(in_dims[1:]))


class SideBySide(TorchFunctionMode):
    """Inside of a function under `torch.vmap`, the above.

    Args:
        stacked: any tensor that is mapped over, by its first dimension
        streams: of each run; None for the global one, whose numbers all runs share
        again: calls a function inside of another one of these, of the same runs
    """

    def __init__(self, stacked: Tensor, streams: Sequence[Stream] | None, again: Again) -> None:
        super().__init__()
        self._stacked = stacked
        self._again = again
        self._streams = streams
        self._special: dict[Any, Callable[..., Any]] = {
            torch.autograd.grad: self._grad,
            Tensor.requires_grad.__get__: _requires_grad,  # pyright: ignore[reportAttributeAccessIssue]
            Tensor.requires_grad_: _require_grad,
            Tensor.register_hook: _refuse_hook,
            torch.randn_like: self._like(Tensor.normal_),
            torch.rand_like: self._like(Tensor.uniform_),
            torch.randn: self._shaped(Tensor.normal_),
            torch.rand: self._shaped(Tensor.uniform_),
            **{fill: self._filled(fill) for fill in (Tensor.normal_, Tensor.uniform_, Tensor.exponential_)},
            **{draw: _refused(draw) for draw in REFUSED},
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch's way to ask what a function does in here."""
        special = self._special.get(func)
        return (special or func)(*args, **(kwargs or {}))

    def place(self) -> Again:
        """What calls a function inside, again, with the random numbers that are next now."""
        streams = self._streams or []
        places = [stream.place() for stream in streams]

        def call(function: Callable[[], Tensor]) -> Tensor:
            with ExitStack() as stack:
                for stream, place in zip(streams, places, strict=True):
                    stack.enter_context(stream.rehearsal(place))
                return self._again(function)

        return call

    def _draw(self, shape: Sequence[int], fill: Callable[..., Tensor], args: Sequence[Any], **like: Any) -> Tensor:
        """Numbers of a shape, for each run from its stream, or the same for all."""

        def below(tensors: list[Tensor], dims: list[int | None]) -> tuple[Tensor, int]:
            assert dims == [0]
            drawn = tensors[0].new_empty((len(tensors[0]), *shape), **like)
            if self._streams is None:
                drawn.copy_(fill(torch.empty_like(drawn[0]), *args))
                return drawn, 0
            for part, stream in zip(drawn.unbind(0), self._streams, strict=True):
                fill(part, *args, generator=stream.generators[part.device.type])
            return drawn, 0

        with torch.no_grad():
            return cast(Tensor, _Stacked.apply(below, self._stacked))

    def _like(self, fill: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def draw(like: Tensor, *, dtype: torch.dtype | None = None, **rest: Any) -> Tensor:
            return self._draw(like.shape, fill, (), dtype=dtype or like.dtype, device=rest.get("device", like.device))

        return draw

    def _shaped(self, fill: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def draw(*size: Any, dtype: torch.dtype | None = None, device: Any = None, **rest: Any) -> Tensor:
            given = rest.get("size", size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size)
            kind = dtype or torch.get_default_dtype()
            return self._draw(given, fill, (), dtype=kind, device=device or torch.get_default_device())

        return draw

    def _filled(self, fill: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """In place for one run, elsewhere for several: it is the result that counts."""

        def draw(into: Tensor, *args: Any, generator: object = None) -> Tensor:
            del generator
            return self._draw(into.shape, fill, args, dtype=into.dtype, device=into.device)

        return draw

    @staticmethod
    def _grad(outputs: Any, inputs: Any, grad_outputs: Any = None, **options: Any) -> tuple[Tensor | None, ...]:
        """`torch.autograd.grad` of sums over what is asked of each run."""
        if grad_outputs is not None:
            raise RuntimeError("torch.autograd.grad with grad_outputs")
        ends = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        starts = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        there: list[bool] = []

        def below(tensors: list[Tensor], dims: list[int | None]) -> tuple[Any, Any]:
            sums = [end.sum() for end in tensors[: len(ends)]]
            found = torch.autograd.grad(sums, tensors[len(ends) :], None, **options)
            there.extend(gradient is not None for gradient in found)
            kept = [
                (gradient, dim) for gradient, dim in zip(found, dims[len(ends) :], strict=True) if gradient is not None
            ]
            return tuple(gradient for gradient, _ in kept), tuple(dim for _, dim in kept)

        gradients = iter(cast("tuple[Tensor, ...]", _Stacked.apply(below, *ends, *starts)))
        return tuple(next(gradients) if known else None for known in there)


def _requires_grad(tensor: Tensor) -> bool:
    found: list[bool] = []

    def below(tensors: list[Tensor], dims: list[int | None]) -> tuple[Tensor, int | None]:
        found.append(tensors[0].requires_grad)
        return tensors[0].detach(), dims[0]

    _Stacked.apply(below, tensor)
    return found[0]


def _require_grad(tensor: Tensor, requires_grad: bool = True) -> Tensor:
    """The tensor, which the caller goes on with, as one that autograd follows."""

    def below(tensors: list[Tensor], dims: list[int | None]) -> tuple[Tensor, int | None]:
        return tensors[0].detach().requires_grad_(requires_grad), dims[0]

    return cast(Tensor, _Stacked.apply(below, tensor))


def _refuse_hook(*args: Any) -> None:
    raise RuntimeError("a hook on a gradient")


def _refused(draw: Callable[..., Any]) -> Callable[..., Any]:
    name = getattr(draw, "__name__", str(draw))

    def refuse(*args: Any, **options: Any) -> Any:
        if draw is torch.nn.functional.dropout and not options.get("training", True):
            return args[0]
        raise RuntimeError(f"{name} draws by a tensor of probabilities; torch.rand_like does the same")

    return refuse
