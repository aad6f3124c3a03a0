"""Files of arrays for the tests, and the one line with which a load is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metvae_cli.data.array import ArrayData
from metvae_cli.data.base import Dataset
from metvae_cli.errors import ConfigError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 4, 5), dtype=np.uint8)


def save(folder: Path, content: Any) -> str:
    """A file of the right kind: an array as .npy, a dictionary as .npz, and either of tensors as .pt."""
    first = next(iter(content.values()), None) if isinstance(content, Mapping) else content
    if isinstance(first, Tensor):
        torch.save(content, folder / "mine.pt")
        return str(folder / "mine.pt")
    if isinstance(content, Mapping):
        np.savez(folder / "mine.npz", **content)
        return str(folder / "mine.npz")
    np.save(folder / "mine.npy", content)
    return str(folder / "mine.npy")


def load(folder: Path, content: Any, **arguments: Any) -> Dataset:
    return ArrayData(**{"path": save(folder, content), "num_valid": 5, "num_test": 3} | arguments).load()


def error_of(source: ArrayData, key: str = "path") -> str:
    """The one-line message of a refused load; it names the key and its value."""
    with pytest.raises(ConfigError) as caught:
        source.load()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"dataset.{key}=")
    assert ";" in message, "no remedy"
    return message


def refused(folder: Path, content: Any, key: str = "path", **arguments: Any) -> str:
    return error_of(ArrayData(**{"path": save(folder, content), "num_valid": 5, "num_test": 3} | arguments), key)
