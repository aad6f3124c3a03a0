"""The random stream of each of several runs in one process: each run draws the numbers that it would draw alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from metvae_cli.training.checkpoint import random_states, restore_random_states


class Stream:
    """A random stream of its own, which begins as the global one stands.

    generators: of the CPU and, on a CUDA device, of that
    """

    def __init__(self) -> None:
        self.generators: dict[str, torch.Generator] = {"cpu": torch.Generator()}
        if torch.cuda.is_available():
            self.generators["cuda"] = torch.Generator(torch.device("cuda", torch.cuda.current_device()))
        self._others: dict[str, Any] = {}
        self.take()

    def take(self) -> None:
        """Stand where the global stream stands."""
        self._others = random_states()
        self._keep()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside, the global stream of torch is this one."""
        torch.set_rng_state(self.generators["cpu"].get_state())
        if "cuda" in self.generators:
            torch.cuda.set_rng_state(self.generators["cuda"].get_state())
        try:
            yield
        finally:
            self._keep()

    def place(self) -> dict[str, Tensor]:
        """Where its generators stand."""
        return {name: generator.get_state() for name, generator in self.generators.items()}

    @contextmanager
    def rehearsal(self, place: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """Inside, numbers are drawn that will be drawn again. place: from which on, if not from where it stands."""
        before = self.place()
        try:
            self._move(place or before)
            yield
        finally:
            self._move(before)

    def states(self) -> dict[str, Any]:
        """What a checkpoint holds, to be asked for inside of `current`. Training draws from torch alone."""
        return random_states() | {name: self._others[name] for name in ("numpy", "python")}

    def restore(self) -> None:
        """Make this the global stream, those of numpy and Python included."""
        states = self.place()
        cuda = [states["cuda"]] if "cuda" in states else []
        restore_random_states(self._others | {"torch": states["cpu"], "cuda": cuda})

    def _move(self, place: Mapping[str, Tensor]) -> None:
        for name, state in place.items():
            self.generators[name].set_state(state)

    def _keep(self) -> None:
        self.generators["cpu"].set_state(torch.get_rng_state())
        if "cuda" in self.generators:
            self.generators["cuda"].set_state(torch.cuda.get_rng_state())
