"""CSV tables: header, columns, labels, standardizing, and one line with line and column for every bad cell."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metvae_cli.data import csv_reader
from metvae_cli.data.base import Dataset
from metvae_cli.data.csv_reader import number
from metvae_cli.data.csv_table import CsvData
from metvae_cli.errors import ConfigError
from tests.runs import train

ROWS = [f"{i},{i * i},n{i},{'ab'[i % 2]}" for i in range(12)]


def load(folder: Path, text: str | bytes, **arguments: Any) -> Dataset:
    path = folder / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return CsvData(**{"path": str(path), "num_valid": 3, "num_test": 2} | arguments).load()


def refused(folder: Path, text: str | bytes, key: str = "path", **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"dataset.{key}=")
    assert ";" in message, "no remedy"
    return message


def every(dataset: Dataset) -> Tensor:
    return torch.cat([split.values for split in (dataset.train, dataset.valid, dataset.test)])


@pytest.mark.parametrize("head", ["", "first,second,name,kind\n", "\ufefffirst,second,name,kind\r\n\r\n"])
def test_numeric_columns_with_and_without_a_header(tmp_path: Path, head: str) -> None:
    dataset = load(tmp_path, head + "\n".join(ROWS) + "\n\n", standardize=False)
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (7, 3, 2)
    assert (dataset.event_shape, dataset.support, dataset.train.labels) == ((2,), "real", None)
    found = sorted(every(dataset).tolist())
    assert found == [[i, i * i] for i in range(12)]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert dataset.test.values[:, 0].tolist() == order[:2].tolist()


def test_standardized_by_the_training_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{row},5" for row in ROWS]
    with caplog.at_level(logging.INFO):
        dataset = load(tmp_path, "a,b,c,d,e\n" + "\n".join(rows), label_column="d")
    x = dataset.train.values.double()
    assert dataset.event_shape == (2,)
    torch.testing.assert_close(x.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.var(0, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert len(caplog.records) == 1
    told = caplog.records[0].getMessage()
    assert told.startswith("mine.csv: 12 rows of 2 real values, standardized by (x - ")
    assert told.endswith("; constant and dropped: e; columns left out: c; labels a, b")


def test_labels_are_the_words_in_sorted_order(tmp_path: Path) -> None:
    dataset = load(tmp_path, "\n".join(ROWS), label_column=4, standardize=False)
    for split in (dataset.train, dataset.valid, dataset.test):
        assert split.labels is not None
        assert torch.equal(split.labels, split.values[:, 0].long() % 2)
    assert load(tmp_path, "\n".join(ROWS), label_column="1").event_shape == (1,), "a label is no datum"


def test_columns_by_name_and_number(tmp_path: Path) -> None:
    named = load(tmp_path, "x,2020,n,k\n" + "\n".join(ROWS), columns=[2020, "x"], standardize=False, header=True)
    assert every(named)[:, 0].tolist() == (every(named)[:, 1] ** 2).tolist()
    assert load(tmp_path, "\n".join(ROWS), columns=[2]).event_shape == (1,)


def test_long_lists_are_cut(tmp_path: Path) -> None:
    text = ",".join(f"c{i}" for i in range(500)) + "\n"
    assert refused(tmp_path, text + text, columns=["x"]).endswith(
        "there are c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, ..."
    )


@pytest.mark.parametrize(("delimiter", "character"), [(";", ";"), ("tab", "\t"), ("\t", "\t")])
def test_delimiters(tmp_path: Path, delimiter: str, character: str) -> None:
    text = "\n".join(ROWS).replace(",", character)
    assert load(tmp_path, text, delimiter=delimiter).event_shape == (2,)


def test_quoted_cells_keep_line_numbers(tmp_path: Path) -> None:
    text = 'name,x\n"a\nb",1\n"c, d",2\n"e",oops\n'
    assert "line 5, column x holds 'oops'" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("a,b\n1,2\n3,\n", {}, "line 3, column b is empty; correct or remove the line, or leave the column out"),
        ("a,b\n1,2\n3,NA\n", {}, "line 3, column b holds 'NA', no finite number"),
        ("a,b\n1,2\nnan,4\n", {}, "line 3, column a holds 'nan'"),
        ("a,b\n1,2\n3,-inf\n", {}, "line 3, column b holds '-inf'"),
        ("1,2\n3,1e999\n", {}, "line 2, column 2 holds '1e999'"),
        ("1,2\n3,1_000\n", {}, "line 2, column 2 holds '1_000'"),
        ("1;2,5\n3;1\n", {"delimiter": ";"}, "line 1, column 2 holds '2,5'"),
        ("id,2019,2020\n1,2,3\n", {}, "line 1, column 1 holds 'id'"),
        ("a,b\nx,1\ny,2\n", {"columns": ["a"]}, "line 2, column a holds 'x'"),
        ("a,b\n1,2\n3\n", {}, "line 3 has 1 cells, the first line 2; correct it, or set dataset.delimiter="),
        ("a,b\nx,y\n", {}, "has no column of numbers; set dataset.delimiter="),
        ("1;2\n3;4\n", {}, "has no column of numbers"),
        ("", {}, "is empty; it must hold rows of numbers"),
        ("\n\n", {}, "is empty"),
        ("a,b\n", {}, "holds names of columns and no row below them"),
        ("a,a\n1,2\n", {}, "has two columns called a; rename one"),
        ("a,\n1,2\n", {"columns": ["c"]}, "has no column c, which dataset.columns names; there are a, "),
        ("a,b\n1,2\n", {"label_column": "c"}, "has no column c, which dataset.label_column names; there are a, b"),
        ('a,b\n1,"2\n', {}, "cannot be read ("),
        (b"a,b\n1,\xff\n", {}, "is no text in UTF-8"),
        (b"a,b\n1,2\n1,2\x00\n", {}, "line 3, column b holds"),
        ("a\n" + "7\n" * 12, {}, "is constant in its 7 rows of training data; there is nothing to learn"),
        ("a\n" + "1e308\n-1e308\n" * 12, {}, "too large to be standardized"),
        ("a\n" + "1e300\n" * 12, {"standardize": False}, "holds numbers up to 1e+300, too large for float32"),
        ("x" * 200_000, {}, "cannot be read (field larger than"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str | bytes, arguments: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, text, **arguments)


def test_too_large_a_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "MAX_MEGABYTES", 0)
    assert "is larger than 0 MB; save it as .npy and set dataset=array" in refused(tmp_path, "1,2\n")


def test_paths_that_name_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; name a file that is there$"):
        CsvData(path=str(tmp_path / "none.csv")).load()
    with pytest.raises(ConfigError, match="is no file"):
        CsvData(path=str(tmp_path)).load()
    with pytest.raises(ConfigError, match=r"^dataset\.path=null: name your file"):
        CsvData().load()


def test_held_out_parts_must_leave_training_data(tmp_path: Path) -> None:
    assert "nothing is left of the 12 data" in refused(tmp_path, "\n".join(ROWS), "num_valid", num_valid=10)


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), (" -2e3 ", -2000.0), ("", None), ("1_0", None), ("nan", None), ("0x1", None)]
)
def test_numbers(text: str, value: float | None) -> None:
    assert number(text) == value or value is None
    assert (number(text) != number(text)) == (value is None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^batch_size=0: must be at least 1$"),
        ({"num_valid": 0}, r"^num_valid=0: must be at least 1$"),
        ({"delimiter": ""}, r"^delimiter=: must be one character, or tab, semicolon or comma$"),
        ({"delimiter": "::"}, r"^delimiter=::: must be one character"),
        ({"delimiter": '"'}, r"must be one character"),
        ({"columns": []}, r"^columns=\[\]: must name each column once"),
        ({"columns": [1, "1"]}, r"must name each column once"),
        ({"columns": [1, 2], "label_column": 2}, r"^label_column=2: must not stand in dataset\.columns$"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CsvData(**arguments)


def test_training_on_a_table(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("\n".join(ROWS))
    words = ("dataset=csv", f"dataset.path={tmp_path / 'mine.csv'}", "dataset.columns=[1,2]", "likelihood=gaussian")
    sizes = ("dataset.num_valid=3", "dataset.num_test=2", "dataset.batch_size=4")
    assert train(*words, *sizes, f"hydra.run.dir={tmp_path / 'run'}") == 0
