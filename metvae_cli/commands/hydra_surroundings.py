"""What Hydra reads of the process and leaves in it: environment, command line, its last job."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Inside, environment variables have these values."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def arguments(program: str, argv: Sequence[str]) -> Iterator[None]:
    """Inside, the command line is this one."""
    before = sys.argv
    sys.argv = [program, *argv]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def job_forgotten() -> Iterator[None]:
    """Afterwards Hydra no longer takes the process for its last job: the next command in it may be another."""
    before = HydraConfig.instance().cfg
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before
