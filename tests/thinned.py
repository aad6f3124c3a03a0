"""Of many cases alike, some run with the fast tests and all others with the slow ones."""

from collections.abc import Iterable

import pytest


def thinned(cases: Iterable[object], every: int) -> list[object]:
    """The cases: the first and every `every`-th after it as they are, the others marked slow."""
    return [pytest.param(case, marks=pytest.mark.slow) if index % every else case for index, case in enumerate(cases)]
