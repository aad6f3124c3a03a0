"""Of many cases alike, some run with the fast tests and all others with the slow ones."""

from collections.abc import Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

T = TypeVar("T")


def thinned(cases: Iterable[T], every: int) -> list[T | ParameterSet]:
    """The cases, all but every so-manieth of them marked slow."""
    return [pytest.param(case, marks=pytest.mark.slow) if index % every else case for index, case in enumerate(cases)]
