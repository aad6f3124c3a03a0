"""Tables of numbers from CSV files that may be anything: every bad cell is named by line and column."""

import csv
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from _csv import Reader  # has no public name

# Larger tables belong into a binary file.
MAX_MEGABYTES = 1000
_LISTED = 10


class CsvError(Exception):
    """What is wrong with a table, and the remedy, in one line."""


@dataclass
class Table:
    """Rows of cells as numbers, with what is needed to name the cells that are none.

    names: of the columns; without a header, their numbers from 1
    cells: row after row, NaN where a cell is no number
    numbers: how many cells of each column are numbers
    bad: line and text of the first cell of each column that is no number
    words: the text of the cells of one column, the label's
    """

    names: list[str]
    cells: "array[float]" = field(default_factory=lambda: array("d"))
    numbers: list[int] = field(default_factory=list)
    bad: dict[int, tuple[int, str]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def column(self, wanted: str | int, key: str) -> int:
        """Index of a column by its name. Raises CsvError where there is none."""
        if str(wanted) not in self.names:
            raise CsvError(f"has no column {wanted}, which {key} names; there are {listed(self.names)}")
        return self.names.index(str(wanted))

    def numeric(self, without: int | None) -> list[int]:
        """Indices of the columns that hold any number."""
        return [i for i, count in enumerate(self.numbers) if count and i != without]

    def values(self, columns: Sequence[int]) -> Tensor:
        """Some columns, (N, D) float64. Raises CsvError for the first cell that is no number."""
        bad = [(*self.bad[i], i) for i in columns if i in self.bad]
        if bad:
            line, text, i = min(bad)
            what = f"holds {text[:40]!r}, no finite number" if text.strip() else "is empty"
            raise CsvError(
                f"line {line}, column {self.names[i]} {what}; correct or remove the line, or leave the column out of "
                "dataset.columns"
            )
        return torch.from_numpy(np.array(self.cells).reshape(-1, len(self.names))[:, list(columns)])


def read_table(path: Path, delimiter: str, header: bool | None, label: str | int | None) -> Table:
    """All rows of a file; empty lines are left out.

    Args:
        path: the file, UTF-8
        delimiter: one character
        header: whether the first row names the columns; None: it does if no cell of it is a number
        label: column whose text is kept

    Raises:
        CsvError: no such file, too large, no text, rows of different length
    """
    if not path.is_file():
        raise CsvError(("is no file" if path.exists() else "no such file") + "; name a file that is there")
    if path.stat().st_size > MAX_MEGABYTES * 2**20:
        raise CsvError(f"is larger than {MAX_MEGABYTES} MB; save it as .npy and set dataset=array")
    try:
        # utf-8-sig: spreadsheets write a byte order mark, which belongs to no name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _read(csv.reader(file, delimiter=delimiter, strict=True), header, label)
    except UnicodeDecodeError as error:
        raise CsvError("is no text in UTF-8; save it as CSV in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise CsvError(f"cannot be read ({error}); save it again as CSV") from error


def listed(names: Sequence[str]) -> str:
    """The first names, for a message: a table may have thousands."""
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def number(text: str) -> float:
    """The finite number that a cell holds, NaN if it holds none."""
    try:
        value = math.nan if "_" in text else float(text)  # Python reads 1_000 as 1000
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _read(reader: "Reader", header: bool | None, label: str | int | None) -> Table:
    first = next((row for row in reader if row), None)
    if first is None:
        raise CsvError("is empty; it must hold rows of numbers")
    named = all(math.isnan(number(text)) for text in first) if header is None else header
    names = [text.strip() for text in first] if named else [str(i) for i in range(1, len(first) + 1)]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise CsvError(f"has two columns called {twice or 'nothing'}; rename one, or set dataset.header=false")
    table = Table(names, numbers=[0] * len(names))
    kept = None if label is None else table.column(label, "dataset.label_column")
    if not named:
        _add(table, first, reader.line_num, kept)
    for row in reader:
        if row:
            _add(table, row, reader.line_num, kept)
    if not table.cells:
        raise CsvError("holds names of columns and no row below them; add rows of numbers")
    return table


def _add(table: Table, row: Sequence[str], line: int, label: int | None) -> None:
    if len(row) != len(table.names):
        raise CsvError(
            f"line {line} has {len(row)} cells, the first line {len(table.names)}; correct it, or set "
            "dataset.delimiter="
        )
    for i, text in enumerate(row):
        value = number(text)
        table.cells.append(value)
        if math.isnan(value):
            table.bad.setdefault(i, (line, text))
        else:
            table.numbers[i] += 1
    if label is not None:
        table.words.append(row[label].strip())
