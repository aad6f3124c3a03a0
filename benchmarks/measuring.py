"""Times of contenders that take turns, memory, and the machine."""

import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.contenders import Run
from benchmarks.processor import processor

BLOCK_SECONDS = 0.1
FEWEST_ROUNDS = 3


class Budget(NamedTuple):
    """seconds: of a row, warm-up excluded. rounds: in place of it, if given."""

    seconds: float
    rounds: int | None = None


class Quartiles(NamedTuple):
    """Of the milliseconds per iteration of the blocks."""

    low: float
    median: float
    high: float


def take_turns(
    runs: Mapping[str, Run], budget: Budget, *, multiple: int = 1, block_seconds: float | None = None
) -> dict[str, Quartiles]:
    """Milliseconds per iteration of each contender; blocks of them alternate, A B C A B C ...

    A block has as many iterations as fill `block_seconds` (those above), a multiple of `multiple`.
    """
    enough, counts = BLOCK_SECONDS if block_seconds is None else block_seconds, {}
    for name, run in runs.items():
        _seconds(run, 1)
        warm = _seconds(run, 1)
        counts[name] = multiple * max(1, round(enough / warm / multiple))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    start, rounds = time.perf_counter(), 0
    while not _is_enough(budget, rounds, time.perf_counter() - start):
        for name, run in runs.items():
            taken[name].append(1000 * _seconds(run, counts[name]) / counts[name])
        rounds += 1
    return {name: quartiles(values) for name, values in taken.items()}


def quartiles(values: Iterable[float]) -> Quartiles:
    """The three of them."""
    points = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return Quartiles(*torch.tensor(list(values), dtype=torch.float64).quantile(points).tolist())


def _is_enough(budget: Budget, rounds: int, spent: float) -> bool:
    if budget.rounds is not None:
        return rounds >= budget.rounds
    return rounds >= FEWEST_ROUNDS and spent >= budget.seconds


def _seconds(run: Run, count: int) -> float:
    """Of so many iterations; a device has finished them."""
    _synchronize()
    start = time.perf_counter()
    run(count)
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Held:
    """A tensor that autograd keeps; the ledger hears when it lets go of it."""

    __slots__ = ("ledger", "tensor")

    def __init__(self, tensor: Tensor, ledger: "SavedBytes") -> None:
        self.tensor, self.ledger = tensor, ledger
        ledger.change(tensor, 1)

    def __del__(self) -> None:
        self.ledger.change(self.tensor, -1)


class SavedBytes:
    """Bytes that autograd keeps for backward passes at a time, each storage once; `present` now, `peak` at most.

    Args:
        own: tensors that are there anyway, such as parameters
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._holders: dict[int, int] = {}
        self.present = self.peak = 0

    def watching(self) -> AbstractContextManager[object]:
        """Inside, what is saved is counted."""
        return torch.autograd.graph.saved_tensors_hooks(lambda tensor: Held(tensor, self), lambda held: held.tensor)

    def change(self, tensor: Tensor, by: int) -> None:
        """One holder of a tensor more or less."""
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._own:
            return
        before = self._holders.get(place, 0)
        self._holders[place] = before + by
        if (before == 0) != (before + by == 0):
            self.present += by * storage.nbytes()
            self.peak = max(self.peak, self.present)


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that are made inside and still there, whoever holds them; `present` now, `peak` at most.

    What `SavedBytes` sees is what autograd is given to keep; here is also what something else keeps in its place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, weakref.finalize[..., Any]] = {}
        self.present = self.peak = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Torch's way to ask what an operation does in here."""
        for given in tree_leaves((args, kwargs)):
            self._note(given, 0)  # unless it is known, it was made outside
        found = func(*args, **(kwargs or {}))
        for made in tree_leaves(found):
            self._note(made, 1)
        return found

    def _note(self, value: object, inside: int) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        place, size = storage._cdata, inside * storage.nbytes()
        if place not in self._known:
            self._known[place] = weakref.finalize(storage, self._gone, place, size)
            self.present += size
            self.peak = max(self.peak, self.present)

    def _gone(self, place: int, size: int) -> None:
        del self._known[place]
        self.present -= size


def live_megabytes(run: Run) -> float:
    """Of all tensors of one iteration at a time, at most."""
    with LiveBytes() as live:
        run(1)
    return live.peak / 2**20


def peak_megabytes(run: Run, own: Iterable[Tensor]) -> float:
    """Of one iteration, above what is there before: on CUDA what is allocated, else what autograd keeps."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(1)
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    saved = SavedBytes(own)
    with saved.watching():
        run(1)
    return saved.peak / 2**20


def machine_lines(device: str, threads: int) -> dict[str, object]:
    """What a number means nothing without."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "torch": torch.__version__,
        "threads": threads,
        "load_at_start": load(),
    }


class Neighbours:
    """What other programs do meanwhile."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """Cores that they kept busy since; 0 where the system does not say."""
        spent = time.perf_counter() - self._start
        return max(0.0, (_busy_seconds() - self._busy - (_own_seconds() - self._own)) / spent)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _busy_seconds() -> float:
    """Of all cores, since the machine was started."""
    path = Path("/proc/stat")
    if not path.is_file():
        return _own_seconds()
    user, nice, system, _, _, interrupts, soft, stolen = map(int, path.read_text(encoding="utf-8").split()[1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def load() -> list[float]:
    """Average of one, five and fifteen minutes."""
    return [round(value, 2) for value in os.getloadavg()]
