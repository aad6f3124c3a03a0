"""What stands in the tables, and that every format can be read back."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from metvae_cli.comparison import formats, records, tables
from metvae_cli.comparison.groups import group_runs
from metvae_cli.comparison.rows import Comparison, build_row, shares
from metvae_cli.comparison.runs import find
from metvae_cli.comparison.tables import Cell, Sheet
from tests.comparison.written import write_run

METRICS = ("val/bound", "test/log_likelihood", "decoder_evaluations")
BOUNDS = {"hmc": [-20.0, -21.0, -22.5], "iwae_x": [-25.0, -25.5, -28.0], "short": [-30.0]}


def compared(
    folder: Path, *, paired: str = "", metrics: tuple[str, ...] = METRICS, confidence: float = 0.95
) -> Comparison:
    runs, _ = find([folder])
    groups = group_runs(runs)
    baseline = next((group for group in groups if group.label == paired), None)
    rows = tuple(build_row(group, metrics, baseline, confidence) for group in groups)
    problems = tuple(run for run in runs if run.state != "finished")
    return Comparison(rows, metrics, baseline, {"val/bound": shares(groups, "val/bound")}, problems, confidence)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for name, bounds in BOUNDS.items():
        for seed, bound in enumerate(bounds):
            metrics = {"val/bound": bound, "test/nll": -bound}
            write_run(tmp_path / f"{name}{seed}", seed, choices={"sampler": name}, metrics=metrics)
    write_run(tmp_path / "bad", 3, choices={"sampler": "hmc"}, status="failed", reason="50% of it & more_of_it")
    write_run(tmp_path / "late", 4, choices={"sampler": "hmc"}, status="interrupted", reason="SIGTERM")
    return tmp_path


def texts(sheet: Sheet) -> list[list[str]]:
    return [[cell.text for cell in row] for row in sheet.rows]


def test_the_table_has_means_spreads_counts_and_the_best(written: Path) -> None:
    sheet = tables.means_sheet(compared(written), "sd")
    assert sheet.columns == (
        *("method", "runs", "failed", "unfinished"),
        *("val/bound", "test log-likelihood", "decoder evaluations"),
    )
    assert texts(sheet) == [
        ["sampler=hmc", "3", "1", "1", "-21.2 ± 1.3", "-21.2 ± 1.3", "1,000"],
        ["sampler=iwae_x", "3", "", "", "-26.2 ± 1.6", "-26.2 ± 1.6", "1,000"],
        ["sampler=short", "1", "", "", "-30.0", "-30.0", "1,000"],
    ]
    assert [row[4].best for row in sheet.rows] == [True, False, False]
    assert [row[6].best for row in sheet.rows] == [True, True, True]  # ties are all best


def test_the_spread_may_be_an_error_or_an_interval(written: Path) -> None:
    assert texts(tables.means_sheet(compared(written), "se"))[0][4] == "-21.17 ± 0.73"
    assert texts(tables.means_sheet(compared(written), "ci"))[0][4] == "-21.2 ± 3.1"
    wider = texts(tables.means_sheet(compared(written, confidence=0.99), "ci"))[0][4]
    assert wider == "-21.2 ± 7.2"  # t of 2 degrees: 9.92 where it is 4.30 for 95 %


def test_lower_is_better_for_costs_and_nothing_is_best_alone_or_where_it_is_not_known(tmp_path: Path) -> None:
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        metrics = {"seconds": seconds, "log_normalizer_error": seconds}
        write_run(tmp_path / name, choices={"sampler": name}, metrics=metrics)
    write_run(tmp_path / "c", choices={"sampler": "c", "dataset": "mnist"}, metrics={"seconds": 0.1}, data="g")
    comparison = compared(tmp_path, metrics=("seconds", "log_normalizer_error"))
    sheet = tables.means_sheet(comparison, "sd")
    best = {row[0].text: (row[2].best, row[3].best) for row in sheet.rows}
    # On other data, one cannot be better.
    assert best == {
        "dataset=digits sampler=a": (True, False),
        "dataset=digits sampler=b": (False, False),
        "dataset=mnist sampler=c": (False, False),
    }
    assert sheet.notes == ("the best is marked among methods with the same data and likelihood",)


def test_missing_numbers_are_blank_and_repeated_seeds_are_noted(written: Path) -> None:
    write_run(written / "again", 0, choices={"sampler": "short"}, metrics={"val/bound": -30.0, "extra": 2.0})
    sheet = tables.means_sheet(compared(written, metrics=("val/bound", "extra")), "sd")
    assert [row[-1] for row in texts(sheet)] == ["", "", "2"]
    assert sheet.notes == ("sampler=short: seed 0 more than once; all count",)


def test_paired_differences(written: Path) -> None:
    sheet = tables.differences_sheet(compared(written, paired="sampler=hmc"))
    assert sheet is not None
    assert texts(sheet) == [
        ["sampler=iwae_x", "3", "-5.0 [-6.2, -3.8] !", "-5.0 [-6.2, -3.8] !", "+0 [+0, +0]"],
        ["sampler=short", "1", "-10", "-10", "+0"],
    ]
    assert tables.differences_sheet(compared(written)) is None


def test_runs_on_other_data_of_the_same_name_are_not_held_against_each_other(tmp_path: Path) -> None:
    for name, data, bound in (("dynamic", "f", -30.0), ("threshold", "g", -20.0)):
        for seed in (0, 1):
            settings = {"dataset.binarization": name}
            write_run(tmp_path / f"{name}{seed}", seed, settings=settings, metrics={"val/bound": bound}, data=data)
    comparison = compared(tmp_path, paired="dataset.binarization=dynamic", metrics=("val/bound",))
    sheet, differences = tables.means_sheet(comparison, "sd"), tables.differences_sheet(comparison)
    assert not any(cell.best for row in sheet.rows for cell in row)
    assert "the best is marked among methods with the same data and likelihood" in sheet.notes
    assert differences is not None
    assert differences.rows == ()


def test_pairs_are_those_of_each_metric_and_other_ways_to_measure_are_noted(tmp_path: Path) -> None:
    for name, data in (("a", 100), ("b", 10_000)):
        for seed in (0, 1, 2):
            metrics = {"val/bound": -30.0 - seed}
            if seed < 2:
                metrics |= {"importance/nats": -29.0 - seed, "importance/data": data}
            write_run(tmp_path / f"{name}{seed}", seed, choices={"sampler": name}, metrics=metrics)
    comparison = compared(tmp_path, paired="sampler=a", metrics=("val/bound", "importance/nats"))
    differences = tables.differences_sheet(comparison)
    assert differences is not None
    assert texts(differences)[0][1] == "2 to 3"
    (note,) = tables.means_sheet(comparison, "sd").notes
    assert "not on as many data, or not with as many samples, for all runs" in note


def test_the_terminal_marks_the_best_with_a_star_where_there_is_no_bold(written: Path) -> None:
    comparison = compared(written)
    text = formats.plain([tables.means_sheet(comparison, "sd")], tables.problem_lines(comparison))
    (line,) = [line for line in text.splitlines() if "sampler=hmc" in line]
    assert re.split(r"\s{2,}", line.strip())[4] == "-21.2 ± 1.3 *"
    assert f"failed      {written}/bad  50% of it & more_of_it" in text
    assert f"interrupted {written}/late  SIGTERM" in text


@pytest.mark.parametrize("width", [20, 60, 80, 100, 140])
def test_a_narrow_terminal_loses_nothing(written: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    sheet = tables.means_sheet(compared(written), "sd")
    formats.terminal([sheet], [], file)
    printed = re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())
    for number in ("-21.2", "-26.2", "-30.0", "1,000"):
        assert printed.count(number) == sum(text.count(number) for row in texts(sheet) for text in row)
    assert "best in bold" in printed
    assert "\x1b[1;32m" in file.getvalue()
    if width >= 100:
        assert all(len(line) <= width for line in printed.splitlines())


def test_long_lists_of_problems_are_cut(written: Path) -> None:
    lines = tables.problem_lines(compared(written), 1)
    assert lines[1:] == ["... and 1 more; --format json lists all"]


def test_csv_can_be_read_back(written: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(records.to_csv(compared(written, paired="sampler=hmc")))))
    assert [row["sampler"] for row in rows] == list(BOUNDS)
    assert [(row["runs"], row["not_finished"]) for row in rows] == [("3", "2"), ("3", "0"), ("1", "0")]
    assert float(rows[1]["val/bound"]) == pytest.approx(sum(BOUNDS["iwae_x"]) / 3)
    assert float(rows[1]["val/bound_difference"]) == pytest.approx(-5.0)
    assert (rows[2]["val/bound_sd"], rows[2]["val/bound_count"]) == ("", "1")
    assert rows[0]["val/bound_pairs"] == ""


def test_json_holds_everything(written: Path) -> None:
    content = json.loads(records.to_json(compared(written, paired="sampler=hmc")))
    group = content["groups"][0]
    assert (group["method"], group["runs"], group["not_finished"]) == ("sampler=hmc", 3, 2)
    values = [member["metrics"]["val/bound"] for member in group["members"] if member["status"] == "finished"]
    assert sorted(values) == sorted(BOUNDS["hmc"])
    assert content["groups"][1]["differences"]["val/bound"]["pairs"] == 3
    assert content["metrics"]["decoder_evaluations"] == "lower is better"
    assert {problem["status"] for problem in content["problems"]} == {"failed", "interrupted"}
    assert content["importance"]["val/bound"][0]["key"] == "sampler"


def test_markdown_is_a_table_with_the_best_in_bold_and_nothing_else_as_markup(written: Path) -> None:
    comparison = compared(written)
    text = formats.markdown([tables.means_sheet(comparison, "sd")], tables.problem_lines(comparison))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[1] == "|---|" + "---:|" * 6
    assert len(table) == 2 + 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {8}
    assert "**-21.2 ± 1.3**" in table[2]
    assert r"sampler=iwae\_x" in table[3]
    assert r"more\_of\_it" in text


def test_latex_is_escaped_and_every_row_has_all_columns(written: Path) -> None:
    comparison = compared(written, paired="sampler=hmc")
    difference = tables.differences_sheet(comparison)
    assert difference is not None
    sheets = [tables.means_sheet(comparison, "ci"), difference, *tables.shares_sheets(comparison)]
    text = formats.latex(sheets, tables.problem_lines(comparison))
    for word in ("toprule", "midrule", "bottomrule", "begin{table}", "end{table}", "begin{tabular}", "end{tabular}"):
        assert text.count(f"\\{word}") == len(sheets)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for sheet in re.findall(r"begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", body, flags=re.DOTALL):
        rows = [line for line in sheet[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(sheet[0])}
    assert r"sampler=iwae\_x" in body
    assert r"\textbf{$-$21.2 $\pm$ 3.1}" in body
    assert r"95 \% confidence" in body
    unescaped = re.sub(r"\\[%&_#{}]|\$-\$|\$\\pm\$", "", body)
    assert not set("%#_~^$±") & set(unescaped)
    assert body.count("{") == body.count("}")


def test_every_letter_that_latex_reads_is_escaped() -> None:
    sheet = Sheet("t", ("a", "b"), ((Cell("x\\y{z}~^<>#$%&_[1,2]"), Cell("-1")),))
    (row,) = [line for line in formats.latex([sheet], []).splitlines() if line.startswith("x")]
    assert row == (
        r"x\textbackslash{}y\{z\}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\#\$\%\&\_{[}1,2{]}"
        r" & $-$1 \\"
    )
