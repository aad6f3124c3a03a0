"""Random streams of evaluation: one for each datum and purpose, so that an estimate depends on nothing else.

What a datum gets does not change with the other data, with the number of those handled together, or with the device:
everything random is drawn on the CPU from a stream named by (seed, purpose, repeat, datum, ...).
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Name = tuple[int | str, ...]


def stream_seed(*name: int | str) -> int:
    """A seed for the stream of this name; different names give unrelated streams."""
    return int.from_bytes(hashlib.blake2b(repr(name).encode(), digest_size=8).digest(), "little") >> 1


@contextmanager
def stream(*name: int | str, dtype: torch.dtype = torch.float64) -> Iterator[None]:
    """Inside, torch's CPU stream is the one of this name and tensors are made with `dtype`; outside nothing changes."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(*name))
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


class DatumStreams:
    """One generator for each datum of a group, for chains that go on drawing.

    Args:
        name: of all of them
        index: (B,) numbers of the data
        device, dtype: of what is given
    """

    def __init__(self, name: Sequence[int | str], index: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        self._generators = [torch.Generator().manual_seed(stream_seed(*name, datum)) for datum in index.tolist()]
        self.device, self.dtype = device, dtype

    def normal(self, num_samples: int, dim: int) -> Tensor:
        """Standard normal, (S, B, D)."""
        drawn = [torch.randn(num_samples, dim, generator=each, dtype=self.dtype) for each in self._generators]
        return torch.stack(drawn, 1).to(self.device)

    def log_uniform(self, num_samples: int) -> Tensor:
        """Logarithms of uniforms in (0, 1], (S, B)."""
        drawn = [torch.rand(num_samples, generator=each, dtype=self.dtype) for each in self._generators]
        return torch.stack(drawn, 1).neg().log1p().to(self.device)
