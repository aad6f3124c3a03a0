"""The table that ends an evaluation."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from metvae_cli.commands.ending import from_here, print_ending


def print_evaluation(rows: Sequence[tuple[str, str]], warnings: Sequence[str], folder: Path) -> None:
    """Print on standard output.

    Raises:
        BrokenPipeError: nobody reads it
    """
    title = "evaluation (nats per datum; ± standard error over data ± over repeats)"
    table = Table(title=title, title_justify="left")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    for name, value in rows:
        table.add_row(name, value)
    results = f"results    {from_here(folder)}/evaluation.json, per_datum.csv"
    print_ending(table, [*(f"warning    {warning}" for warning in warnings), results])
