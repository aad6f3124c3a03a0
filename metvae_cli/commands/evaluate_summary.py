"""The table that ends an evaluation."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

_NARROWEST = 110


def print_evaluation(rows: Sequence[tuple[str, str]], warnings: Sequence[str], folder: Path) -> None:
    """Print on standard output; paths as one would type them from here.

    Raises:
        BrokenPipeError: nobody reads it
    """
    if sys.stdout is None:
        return
    title = "evaluation (nats per datum; ± standard error over data ± over repeats)"
    table = Table(title=title, title_justify="left")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    for name, value in rows:
        table.add_row(name, value)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _NARROWEST)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    lines = [*(f"warning    {warning}" for warning in warnings), f"results    {folder}/evaluation.json, per_datum.csv"]
    try:
        console.print(table)
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    except SystemExit:  # rich's answer to a closed pipe
        raise BrokenPipeError from None
