"""Why a run failed, in words that say what to do: a disk that is full, memory that does not suffice."""

import errno
import re
from pathlib import Path
from types import MappingProxyType

import torch

from metvae_cli.errors import ConfigError, RunError

_DISK = MappingProxyType(
    {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space: your quota is used up",
        errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
        errno.EROFS: "make it writable",
    }
)
# What allocators other than CUDA's say, in a plain RuntimeError.
_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "size calculation overflowed")
_LOWER = MappingProxyType(
    {
        "train": "lower dataset.batch_size, objective.num_samples or sampler.num_steps, or set "
        "trainer.checkpoint_chain=true",
        "infer": "lower batch_size, objective.num_samples, sampler.num_steps or evaluation.draws, or set "
        "trainer.checkpoint_chain=true",
        "evaluate": "lower importance.chunk, ais.chunk and bdmc.chunk, which changes no result (and does nothing for "
        "importance.proposal=chain), or data, importance.num_samples, sampler.num_draws and exact.points",
        "sample": "lower count, data, steps or train_data",
    }
)


def told(error: Exception, command: str, folder: Path, afterwards: str = "") -> str | None:
    """What to say of a run of `command` in `folder` that an error has ended; None where there is no more to say of it.

    afterwards: what can be done once the cause is gone
    """
    if isinstance(error, ConfigError | RunError):
        return None
    # Closing a file may fail of the same cause after it: the file that came first is said.
    while isinstance(first := error.__context__, OSError) and first.errno in _DISK and first.filename:
        error = first
    remedy = _DISK.get(error.errno or 0) if isinstance(error, OSError) else None
    if isinstance(error, OSError) and remedy:
        steps = "; ".join(step for step in (remedy, afterwards) if step)
        return f"{error.filename or folder}: cannot be written ({error.strerror}); {steps}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in _MEMORY):
        asked = re.search(r"tried to allocate [\d.]+ \w+", str(error), flags=re.IGNORECASE)
        return f"out of memory{f' ({asked.group().lower()})' if asked else ''}: {_LOWER[command]}"
    return None
