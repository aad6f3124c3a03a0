"""metrics.csv: one row per validation, cut back to the checkpoint's place on a resume."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from metvae_cli.errors import naming


class MetricsFile:
    """Appends rows; the first row fixes the columns.

    Args:
        path: the file
        position: length in bytes to keep of an existing file; 0 starts anew
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self.path = path
        if path.exists():
            os.truncate(path, min(position, path.stat().st_size))

    def position(self) -> int:
        """Length in bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, values: Mapping[str, float]) -> None:
        """Add a row, and the header before the first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = self._columns()
        if not columns:
            columns = list(values)
            writer.writerow(columns)
        writer.writerow([values.get(name, "") for name in columns])
        with naming(self.path), self.path.open("a") as file:
            file.write(text.getvalue())

    def last(self) -> dict[str, float]:
        """The last row, without its empty cells; empty if there is none."""
        if not self.position():
            return {}
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: float(value) for name, value in rows[-1].items() if value} if rows else {}

    def _columns(self) -> list[str]:
        if not self.position():
            return []
        with self.path.open(newline="") as file:
            return next(csv.reader(file), [])
