"""Random numbers of a share of a batch that are those of the whole batch.

Several processes that work on one batch start from equal random streams. Each draws for the whole batch and keeps its
own rows: the chains of a datum then see the numbers that they would see in one process, and the streams stay equal.
The numbers of a batch are cheap against decoding it; what they cost more grows with the batch and not with the model.

A draw belongs to the batch if it has two or more dimensions and dimension 1 is the share, as in (S, B, ...); any other
is the same number in every process. Only draws that fill a shape can be drawn so; those that depend on a tensor of
probabilities, and dropout, are refused, for `torch.rand_like(p) < p` does the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from metvae_cli.errors import RunError

_LIKE = (torch.rand_like, torch.randn_like)
_SHAPED = (torch.rand, torch.randn)
_IN_PLACE = (Tensor.normal_, Tensor.uniform_, Tensor.exponential_)
REFUSED = (
    torch.bernoulli,
    torch.normal,
    torch.multinomial,
    torch.poisson,
    torch.randint,
    torch.randint_like,
    torch._standard_gamma,  # pyright: ignore[reportPrivateImportUsage]
    Tensor.bernoulli_,
    Tensor.random_,
    Tensor.cauchy_,
    Tensor.log_normal_,
    Tensor.geometric_,
    torch.nn.functional.dropout,
)


class WholeBatchDraws(TorchFunctionMode):
    """Rows `first` to `last` of what a batch of `total` data draws.

    Raises:
        RunError: inside, at a draw that cannot be shared
    """

    def __init__(self, first: int, last: int, total: int) -> None:
        super().__init__()
        self.rows = slice(first, last)
        self.own, self.total = last - first, total

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch's way to ask what a function does in here."""
        options = dict(kwargs or {})
        args = (
            *args,
            *(options.pop(name) for name in ("input", "size") if func in (*_LIKE, *_SHAPED) and name in options),
        )
        if func in _LIKE and self._is_of_the_batch(args[0].shape):
            like = args[0].new_empty(self._whole(args[0].shape))
            return func(like, *args[1:], **options)[:, self.rows].contiguous()
        if func in _SHAPED:
            shape = torch.Size(args[0] if isinstance(args[0], Sequence) else args)
            if self._is_of_the_batch(shape):
                return func(self._whole(shape), **options)[:, self.rows].contiguous()
        if func in _IN_PLACE:
            into = cast(Tensor, args[0])
            if self._is_of_the_batch(into.shape):
                whole = func(into.new_empty(self._whole(into.shape)), *args[1:], **options)
                return into.copy_(whole[:, self.rows])
        if func in REFUSED and (func is not torch.nn.functional.dropout or options.get("training", True)):
            name = getattr(func, "__name__", str(func))
            raise RunError(f"{name} cannot be drawn for a batch that several processes share; use torch.rand_like")
        return func(*args, **options)

    def _is_of_the_batch(self, shape: torch.Size) -> bool:
        if len(shape) > 1 and shape[1] != self.own and shape[0] == self.own:
            raise RunError(f"a draw of shape {tuple(shape)}: has no samples before the batch; draw (S, B, ...)")
        return len(shape) > 1 and shape[1] == self.own

    def _whole(self, shape: torch.Size) -> torch.Size:
        return torch.Size([shape[0], self.total, *shape[2:]])
