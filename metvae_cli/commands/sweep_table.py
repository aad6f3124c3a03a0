"""The table that ends a sweep: how every job stands, as its own files say."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from metvae_cli.commands.ending import look, print_ending
from metvae_cli.errors import printable
from metvae_cli.tracking.run_directory import DONE, RunDirectory, read_status

_VALUES = {"train": "best validation bound", "infer": "score", "evaluate": "log-likelihood"}
# What a run gives its sweep, as summary.json calls it: of infer, of train, of a plain chain.
_SCORES = ("bound", "val/bound", "chains/effective_size_per_evaluation")
_COLOURS = {"finished": "green", "pruned": "cyan", "failed": "red"}


class Standing(NamedTuple):
    """How a job stands. status: finished, pruned, failed, interrupted, running (in another process) or killed."""

    folder: Path
    status: str
    reason: str
    value: float | None


def standing(folder: Path) -> Standing:
    """How the job in a directory stands."""
    found = read_status(folder)
    status, reason = found.get("status", "killed"), found.get("reason", "")
    if status == "running":
        holder = RunDirectory(folder).holder()
        status, reason = ("running", f"in another process ({holder})") if holder else ("killed", "its process is gone")
    value = found.get("value", _score(folder)) if status in DONE else None
    return Standing(
        folder, printable(str(status)), printable(str(reason)), value if isinstance(value, float | int) else None
    )


def print_sweep(
    command: str, folder: Path, jobs: Sequence[Standing], missing: int, to_go_on: str, notes: Sequence[str] = ()
) -> None:
    """Print on standard output.

    Args:
        command: train, infer, ...
        folder: of the sweep
        jobs: those that have begun
        missing: how many others there are
        to_go_on: what to type for what is left to do; empty if nothing is
        notes: lines to stand below the table

    Raises:
        BrokenPipeError: nobody reads it
    """
    counts = [(status, sum(job.status == status for job in jobs)) for status in dict.fromkeys(j.status for j in jobs)]
    counts += [("not begun", missing)] if missing else []
    table = Table(title=f"sweep: {', '.join(f'{count} {status}' for status, count in counts)}", title_justify="left")
    table.add_column("directory", overflow="fold")
    table.add_column("status")
    of_seeds = ", mean over seeds" * any("seeds" in _summary(job.folder) for job in jobs)
    table.add_column(f"{_VALUES.get(command, 'value')}{of_seeds}", justify="right")
    table.add_column("reason", overflow="fold")
    for job in jobs:
        value = "" if job.value is None else f"{job.value:.3f}"
        place = printable(job.folder.relative_to(folder).as_posix())
        status = Text(job.status, style=_COLOURS.get(job.status, "yellow"))
        table.add_row(Text(place), status, value, Text(job.reason))
    lines = [*notes, f"sweep      {folder}", look(folder)]
    print_ending(table, [*lines, f"go on      {to_go_on}"] if to_go_on else lines)


def _score(folder: Path) -> Any:
    """The value of a run whose job was cut off before it wrote it beside the status."""
    found = _summary(folder)
    return next((found[name] for name in _SCORES if name in found), None)


def _summary(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
