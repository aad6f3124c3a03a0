"""Seeds and precision of every test."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random stream."""
    torch.manual_seed(20_090_910)


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision by default, for proofs of exactness."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
