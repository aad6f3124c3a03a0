"""The device, the number of threads and the random streams of a run."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import numpy as np
import torch

from metvae_cli.errors import ConfigError

DeviceName = Annotated[str, "one of auto, cpu, cuda, cuda:N, mps"]
# Below so many parameters one CPU thread is faster than several: they would wait for each other longer than they work,
# and many times longer where something else runs.
SMALL = 200_000
# Jobs of a sweep share a process: what one of them sets is not the next one's default.
_THREADS_AT_START = torch.get_num_threads()


def set_threads(threads: int | None, num_parameters: int, processes: int = 1) -> None:
    """One CPU thread for a small model, torch's own choice, shared out, for others; nothing where the user chose."""
    if threads is None:
        torch.set_num_threads(1 if num_parameters < SMALL else max(1, _THREADS_AT_START // processes))


def prepare_device(name: str, threads: int | None, where: str) -> torch.device:
    """The device to run on, after setting the number of threads.

    Args:
        name: auto, cpu, cuda, cuda:N or mps
        threads: CPU threads, or None
        where: what stands before the keys `device` and `threads` in messages, like `trainer.`

    Raises:
        ConfigError: there is no such device, or there are not as many cores
    """
    if threads is not None:
        cores = os.cpu_count() or 1
        if threads > cores:
            raise ConfigError(f"{where}threads={threads}: this machine has {cores}")
        torch.set_num_threads(threads)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ConfigError(f"{where}device={name}: not on this machine; there is {', '.join(there)}") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)  # whose random stream is then the one that is saved and forked
    return device


def seed_everything(seed: int) -> None:
    """Set every global random stream."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def fork_rng(seed: int) -> Iterator[None]:
    """A random stream of its own inside, the outer one untouched after."""
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(seed)
        yield
