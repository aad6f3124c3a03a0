"""Checkpoints that are whole or not there, and that are what was written.

A checkpoint is what `torch.save` writes, followed by one line with the SHA-256 of those bytes; `torch.load` reads it as
it is. It is written beside its place, flushed to the disk and renamed. Loading checks the hash first (a flipped bit
would otherwise load as other weights) and admits tensors and plain types only.
"""

import hashlib
import io
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from metvae_cli.errors import ConfigError, naming
from metvae_cli.training.checkpoint_content import ContentError, read_content

FORMAT = 1
_FOOTER_START = b"\nsha256:"
_FOOTER_SIZE = len(_FOOTER_START) + 64 + 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write atomically: after a crash `path` is the old checkpoint or the new one."""
    buffer = io.BytesIO()
    torch.save(_alone({"format": FORMAT, **content}), buffer)
    payload = buffer.getvalue()
    footer = _FOOTER_START + hashlib.sha256(payload).hexdigest().encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(payload + footer)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _alone(value: Any) -> Any:
    """The same with tensors copied that are a part of a larger one, or of a smaller one repeated: `torch.save` writes
    all of what a tensor views, and no more.
    """
    if isinstance(value, dict):
        return {key: _alone(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_alone(entry) for entry in value]
    if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() != value.nbytes:
        return value.clone()
    return value


class DamagedError(ConfigError):
    """A checkpoint is not there, or not what was written."""


def load_checkpoint(path: Path, run: str = "") -> dict[str, Any]:
    """Read and verify; tensors come back on the CPU.

    run: id of the run whose checkpoint it has to be; empty where that is not known

    Raises:
        DamagedError: missing or damaged
        ConfigError: foreign, of another run or written by a newer version
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        kind = ConfigError if isinstance(error, PermissionError) else DamagedError
        raise kind(f"checkpoint {path}: cannot be read ({error.strerror}); use another of the run") from None
    payload, footer = data[:-_FOOTER_SIZE], data[-_FOOTER_SIZE:]
    found = hashlib.sha256(payload).hexdigest()
    if not footer.startswith(_FOOTER_START) or not footer.endswith(b"\n"):
        raise DamagedError(f"checkpoint {path}: truncated, or not a metvae checkpoint; use another one of the run")
    expected = footer[len(_FOOTER_START) : -1].decode(errors="replace")
    if found != expected:
        raise DamagedError(
            f"checkpoint {path}: damaged (SHA-256 {found[:16]}..., expected {expected[:16]}...); use another of the run"
        )
    try:
        content = read_content(payload)
    except ContentError as error:
        raise ConfigError(f"checkpoint {path}: refused, {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigError(f"checkpoint {path}: written by another version of metvae (expected format {FORMAT})")
    if run and _run_of(content) not in ("", run):
        raise ConfigError(f"checkpoint {path}: is of another run; put back the one that this run has written")
    return content


def refuse_gone_on(folder: Path, content: dict[str, Any] | None) -> None:
    """Raise ConfigError where another process has gone on with a run since it was looked at.

    Args:
        folder: of the run
        content: of the checkpoint that is to be gone on from; None where there was none
    """
    try:
        state = load_checkpoint(folder / "checkpoints" / "last.pt")["state"]
    except DamagedError:  # or none: what was found instead counts
        return
    if content is None or any(state[name] != content["state"][name] for name in ("iteration", "seconds")):
        raise ConfigError(f"resume={folder}: another process has gone on with it in the meantime; say the same again")


def require_finite(module: nn.Module, where: str, instead: str = "set checkpoint=best") -> None:
    """Raise ConfigError where a weight is NaN or infinite.

    Args:
        module: that holds the weights
        where: what they are of, to begin the message
        instead: what to do about it, other than to train again
    """
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ConfigError(
                f"{where}: {name} is not finite, training had failed by then; {instead}, or train again with a lower "
                "optimizer.lr or sampler.step_size"
            )


def _run_of(content: dict[str, Any]) -> str:
    """The id of the run that wrote a checkpoint; empty of an earlier version's."""
    state = content.get("state")
    return str(state.get("run", "")) if isinstance(state, dict) else ""


def load_newest(folder: Path, run: str = "") -> tuple[dict[str, Any], list[str]]:
    """What a run goes on from, and what has to be said of it.

    This is `last.pt` or, where that is damaged or missing, `best.pt`. Where `best.pt` is, no earlier validation counts
    any more: the best of those to come is kept.

    Args:
        folder: with the checkpoints
        run: as of `load_checkpoint`

    Raises:
        ConfigError: there is none that is whole; or as `load_checkpoint`
    """
    last, best = folder / "last.pt", folder / "best.pt"
    try:
        content = load_checkpoint(last, run)
    except DamagedError as damage:
        if not best.is_file():
            raise
        try:
            content = load_checkpoint(best, run)
        except DamagedError as second:
            raise ConfigError(f"{damage}; and {second}") from None
        return content, [f"{damage}: goes on from {best.name}; what came after it is done again"]
    state = content.get("state")
    if not isinstance(state, dict) or not math.isfinite(state.get("best_value", -math.inf)):
        return content, []
    try:
        load_checkpoint(best, run)
    except DamagedError as damage:
        state |= {"best_value": -math.inf, "best_epoch": 0.0, "validations_since_best": 0, "validated_at": -1}
        return content, [f"{damage}: the best weights so far are lost; the best of those to come are kept"]
    return content, []


def random_states() -> dict[str, Any]:
    """The states of every generator in use, as tensors and plain values."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the device in use
        "numpy": [
            str(kind),
            torch.from_numpy(np.array(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, list(internal), gauss_next],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Put every generator back where `random_states` found it."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"][0])
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
