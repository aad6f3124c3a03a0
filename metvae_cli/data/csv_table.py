"""The user's own table: rows of numbers in a CSV file, standardized."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metvae_cli.data.base import Dataset, Split, require_at_least
from metvae_cli.data.csv_reader import CsvError, Table, listed, read_table
from metvae_cli.data.splits import seeded_split
from metvae_cli.data.value_kinds import Standardization
from metvae_cli.errors import ConfigError

log = logging.getLogger(__name__)


class CsvData:
    """Event shape (D,), real values: the numeric columns of a CSV file.

    Standardizing drops columns that are constant in the training data, and says so in the log: they carry nothing, and
    no scale would make their variance one.

    path: the file, UTF-8
    batch_size: training data per iteration
    delimiter: between cells: one character, or tab, semicolon or comma
    header: whether the first row names the columns; null: it does if no cell of it is a number
    columns: names of the columns to use, numbers from 1 without a header; null is all that hold numbers
    label_column: column with labels, numbered in sorted order; not part of the data
    standardize: columns minus the mean of the training data, divided by their standard deviation
    num_valid, num_test: held-out rows; the rest is for training
    split_seed: seed of the split

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        path: str | None = None,
        batch_size: int = 100,
        delimiter: str = ",",
        header: bool | None = None,
        columns: Sequence[str | int] | None = None,
        label_column: str | int | None = None,
        standardize: bool = True,
        num_valid: int = 200,
        num_test: int = 200,
        split_seed: int = 0,
    ) -> None:
        require_at_least(1, batch_size=batch_size, num_valid=num_valid, num_test=num_test)
        require_at_least(0, split_seed=split_seed)
        self.delimiter = {"tab": "\t", "semicolon": ";", "comma": ","}.get(delimiter, delimiter)
        if len(self.delimiter) != 1 or self.delimiter in '\r\n"':
            raise ValueError(f"delimiter={delimiter}: must be one character, or tab, semicolon or comma")
        if columns is not None and not 0 < len(columns) == len(set(map(str, columns))):
            raise ValueError(f"columns={list(columns)}: must name each column once, or be null")
        if columns is not None and str(label_column) in map(str, columns):
            raise ValueError(f"label_column={label_column}: must not stand in dataset.columns")
        self.path = path
        self.batch_size = batch_size
        self.header = header
        self.columns = columns
        self.label_column = label_column
        self.standardize = standardize
        self.num_valid = num_valid
        self.num_test = num_test
        self.split_seed = split_seed

    def load(self) -> Dataset:
        """The three splits.

        Raises ConfigError where the file is missing or no table, or a cell is no number.
        """
        if self.path is None:
            raise ConfigError("dataset.path=null: name your file, as in dataset.path=table.csv")
        path = Path(self.path).expanduser()
        try:
            table = read_table(path, self.delimiter, self.header, self.label_column)
            chosen = self._columns(table)
            values = table.values(chosen)
            index = seeded_split(len(values), self.num_valid, self.num_test, self.split_seed)
            names = [table.names[i] for i in chosen]
            values, told = self._standardized(values, index[0], names) if self.standardize else (values, "")
            if not values.float().isfinite().all():
                raise CsvError(f"holds numbers up to {values.abs().max():.6g}, too large for float32; rescale them")
        except CsvError as error:
            raise ConfigError(f"dataset.path={self.path}: {error}") from error
        labels, classes = word_labels(table.words)
        left_out = [name for name in table.names if name not in [*names, str(self.label_column)]]
        told += f"; columns left out: {listed(left_out)}" if left_out else ""
        told += f"; labels {listed(classes)}" if classes else ""
        log.info("%s: %d rows of %d real values%s", path.name, len(values), values.shape[1], told)
        splits = [Split(values[part].float(), None if labels is None else labels[part]) for part in index]
        return Dataset(path.stem, *splits, support="real")

    def _columns(self, table: Table) -> list[int]:
        """Indices of the columns to use."""
        if self.columns is not None:
            return [table.column(name, "dataset.columns") for name in self.columns]
        label = None if self.label_column is None else table.column(self.label_column, "dataset.label_column")
        found = table.numeric(without=label)
        if not found:
            raise CsvError(
                "has no column of numbers; set dataset.delimiter=semicolon or tab (numbers have a decimal point)"
            )
        return found

    def _standardized(self, values: Tensor, train: Tensor, names: Sequence[str]) -> tuple[Tensor, str]:
        """Standardized columns without the constant ones, and how in words."""
        varies = values[train].amin(0) != values[train].amax(0)
        if not varies.any():
            raise CsvError(f"is constant in its {len(train)} rows of training data; there is nothing to learn")
        try:
            how = Standardization.of(values[train][:, varies])
        except ValueError as error:
            raise CsvError(f"holds numbers {error}; rescale them") from error
        constant = [name for name, keep in zip(names, varies.tolist(), strict=True) if not keep]
        dropped = f"; constant and dropped: {listed(constant)}" if constant else ""
        return how.apply(values[:, varies]), f", {how.told()}{dropped}"


def word_labels(words: Sequence[str]) -> tuple[Tensor | None, list[str]]:
    """Labels (N,) int64 and the sorted words that they stand for; None for no words."""
    if not words:
        return None, []
    classes = sorted(set(words))
    label_of = {word: label for label, word in enumerate(classes)}
    return torch.tensor([label_of[word] for word in words]), classes
