"""Files that are whole or not there, whatever happens to the process that writes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metvae_cli.errors import naming


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Inside, write to the path that is given; it takes the place of `path` if nothing is raised."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def discard_unfinished(folder: Path) -> None:
    """Remove what processes that were killed had not finished writing into a run's directory, which is ours alone."""
    for place in (folder, folder / "checkpoints", folder / ".hydra"):
        for temporary in place.glob(".*.tmp"):
            temporary.unlink(missing_ok=True)
