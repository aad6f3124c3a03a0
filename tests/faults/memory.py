"""How much memory something takes at its peak, in this process."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEGABYTE = 2**20


def peak_growth(action: Callable[[], object]) -> int:
    """Bytes by which the resident memory grew at its peak, beyond what it was before."""
    if not _RESET.exists():
        pytest.skip("measured through Linux's /proc")
    _RESET.write_text("5")  # sets the peak back to what is resident now
    before = _kilobytes("VmRSS")
    action()
    return (_kilobytes("VmHWM") - before) * 1024


def _kilobytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), flags=re.MULTILINE)
    assert found
    return int(found[1])
