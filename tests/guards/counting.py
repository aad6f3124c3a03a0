"""What an iteration of a method costs, counted: latent vectors decoded, tensors saved, reads by the host."""

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import metvae_cli
from benchmarks.contenders import METHODS, Case, Contender, Machine, latents_decoded, make_contender, training
from benchmarks.measuring import SavedBytes
from tests.runs import own_globals

GUARDED = (
    *("vae", "iwae10", "metvae_hmc", "metvae_flow", "metvae_stopped"),
    *("lmcvae", "amcvae", "uha", "hvae", "hoffman", "vcd"),
)
CHAINS = tuple(name for name in GUARDED if METHODS[name].steps is None)
TINY = ("latent_dim=4", "encoder.hidden=[8]", "decoder.hidden=[8]", "dataset.batch_size=4")


def make(images: Path, method: str, steps: int, *words: str, net: str = "fc400") -> Contender:
    """A method of so many steps, as its experiment stands; words: in place of the tiny sizes."""
    own = METHODS[method].steps
    with own_globals():
        case = Case(net, method, steps if own is None else own, words or TINY)
        return make_contender(case, Machine("cpu", 1, images))


# -------------------------------------------------------------------- latent vectors


def decoded(contender: Contender) -> list[Tensor]:
    """The latent vectors that one iteration decodes, (n, D) for each pass of the decoder."""
    with latents_decoded(cast(nn.Module, contender.experiment.learner.model.decoder)) as passes:
        training(contender)(1)
    return passes


# -------------------------------------------------------------------- tensors saved for backward passes


class Saved(SavedBytes):
    """`peak` is of bytes, each storage once; `most` is of tensors, each time one is saved."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__(own)
        self.held = self.most = 0

    def change(self, tensor: Tensor, by: int) -> None:
        super().change(tensor, by)
        self.held += by
        self.most = max(self.most, self.held)


def saved(contender: Contender) -> Saved:
    """What autograd holds in an iteration."""
    learner = contender.experiment.learner
    counted = Saved([*learner.model.parameters(), *learner.sampler.parameters()])
    run = training(contender)
    with counted.watching():
        run(1)
    return counted


# -------------------------------------------------------------------- reads by the host

_READS = {"_local_scalar_dense", "nonzero", "nonzero_static", "is_nonzero", "equal", "masked_select", "_unique2"}
_CHOSEN_BY_MASK = {"index", "index_put", "index_put_", "_index_put_impl_"}
_COPIES = {"tolist", "numpy", "cpu"}
_PACKAGE = Path(metvae_cli.__file__).parent


class _Operations(TorchDispatchMode):
    """Operations whose result the host must know before it can go on."""

    def __init__(self, places: Counter[str]) -> None:
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        by_mask = name in _CHOSEN_BY_MASK and any(t is not None and t.dtype == torch.bool for t in args[1])
        if name in _READS or by_mask:
            self.places[_place()] += 1
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Functions that copy to the host without an operation of their own."""

    def __init__(self, places: Counter[str]) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in _COPIES:
            self.places[_place()] += 1
        return func(*args, **(kwargs or {}))


def _place() -> str:
    """The file that asks: of the package, by its name in it, or of zuko."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(_PACKAGE):
            return path.relative_to(_PACKAGE).as_posix()
        if "zuko" in path.parts:
            return "zuko"
    return "outside"


@contextmanager
def host_reads() -> Iterator[Counter[str]]:
    """Inside, each time the host reads what a device computed is counted, by the file that asks."""
    places: Counter[str] = Counter()
    with _Operations(places), _Functions(places):
        yield places
