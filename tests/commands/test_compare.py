"""`metvae compare` as a user meets it: real runs, options, files, and one line for every bad word."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from metvae_cli import cli
from tests.comparison.written import write, write_run, write_sweep_file
from tests.runs import CHECKOUT, train

BOUNDS = {"hmc": [-20.0, -21.0], "none": [-25.0, -25.5]}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "train" / "sweep"
    for i, (name, bounds) in enumerate(BOUNDS.items()):
        for seed, bound in enumerate(bounds):
            for rate in (0.1, 0.2):
                metrics = {"val/bound": bound + rate, "test/nll": -bound, "seconds": 10.0 * i + rate}
                place = folder / f"{name}{seed}{rate}"
                settings = {"optimizer.lr": rate}
                write_run(
                    place, seed, choices={"sampler": name}, settings=settings, metrics=metrics, curve=[-40, bound]
                )
    write_run(
        folder / "bad", 2, choices={"sampler": "none"}, settings={"optimizer.lr": 0.2}, status="failed", reason="x"
    )
    return folder


def methods(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The labels of the rows, in order."""
    assert cli.main(["compare", *words, "--format", "csv"]) == 0
    return [row["method"] for row in csv.DictReader(capsys.readouterr().out.splitlines())]


def test_real_runs_are_one_row_with_their_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("-m", "seed=0,1", "trainer.max_epochs=1") == 0
    capsys.readouterr()
    assert cli.main(["compare", "outputs/train", "--format", "json", "--plot", "curves.png"]) == 0
    content = json.loads(capsys.readouterr().out)
    (group,) = content["groups"]
    assert group["method"] == "sampler=hmc_stopped objective=metvae_stopped"
    assert [member["seed"] for member in group["members"]] == [0, 1]
    folders = [Path(member["folder"]) for member in group["members"]]
    bounds = [json.loads((folder / "summary.json").read_text())["val/bound"] for folder in folders]
    assert group["metrics"]["val/bound"]["mean"] == pytest.approx(sum(bounds) / 2)
    assert content["problems"] == []
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_the_usual_table_of_the_usual_place(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare"]) == 0
    output = capsys.readouterr().out
    words = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    assert ["method", "runs", "failed", "val/bound", "test log-likelihood", "decoder evaluations", "seconds"] in words
    assert [line[0] for line in words if line[0].startswith("sampler=")] == [
        *("sampler=hmc optimizer.lr=0.2", "sampler=hmc optimizer.lr=0.1"),
        *("sampler=none optimizer.lr=0.2", "sampler=none optimizer.lr=0.1"),
    ]
    assert "failed      outputs/train/sweep/bad  x" in output
    assert "20.30 ± 0.71 *" in output


def test_sort_filter_by_and_metric(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert methods(capsys, str(sweep), "--by", "sampler") == ["sampler=hmc", "sampler=none"]
    assert methods(capsys, str(sweep), "--by", "sampler", "--reverse") == ["sampler=none", "sampler=hmc"]
    assert methods(capsys, str(sweep), "--by", "sampler", "--sort", "seconds") == ["sampler=hmc", "sampler=none"]
    assert methods(capsys, str(sweep), "--filter", "sampler=none", "--filter", "lr<0.15") == [
        "sampler=none objective=metvae"
    ]
    assert cli.main(["compare", "--metric", "nll,seconds", "--metric", "val/bound", "--format", "csv"]) == 0
    columns = capsys.readouterr().out.splitlines()[0].split(",")
    assert [name for name in columns if name in ("test/nll", "seconds", "val/bound")] == [
        *("test/nll", "seconds", "val/bound"),
    ]


@pytest.mark.parametrize("words", [["--paired"], ["--paired", "hmc"], ["--paired=sampler=hmc"]])
def test_paired(sweep: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--by", "sampler", *words]) == 0
    output = capsys.readouterr().out
    assert "paired differences from sampler=hmc, with 95 % t intervals" in output
    assert "-4.8" in output


def test_a_directory_after_paired_is_a_directory(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--by", "sampler", "--paired", str(sweep)]) == 0
    assert "paired differences from sampler=hmc" in capsys.readouterr().out


def test_importance(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--importance", "--metric", "val/bound"]) == 0
    output = capsys.readouterr().out
    rows = output[output.index("what mattered for val/bound") :].splitlines()
    order = [line.split()[0] for line in rows if line.lstrip().startswith(("sampler ", "optimizer.lr ", "seed "))]
    assert order[0] == "sampler"
    assert set(order) == {"sampler", "optimizer.lr", "seed"}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("t.csv", "method,"),
        ("t.json", "{"),
        ("t.md", "Mean ± standard deviation"),
        ("t.tex", "% needs \\usepackage{booktabs}"),
        ("t.txt", "mean ± standard deviation"),
    ],
)
def test_the_name_of_the_output_says_its_format(
    sweep: Path, name: str, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", "--output", name]) == 0
    assert Path(name).read_text(encoding="utf-8").startswith(start)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"written {name}\n")


def test_jobs_that_ended_early_have_a_row_of_their_own(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep_file(sweep.parent / "other", ["sampler=hmc,none"])
    assert cli.main(["compare"]) == 0
    output = capsys.readouterr().out
    (row,) = [line for line in output.splitlines() if "(ended before it was configured)" in line]
    assert row.split()[-2:] == ["0", "2"]  # neither finished nor failed: unfinished
    assert "not started outputs/train/other/1  sampler=none" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: no such directory; name a run"),
        (["empty"], "empty: no run is there; name a folder that `metvae train`"),
        (["--metric", "vall/bound"], "--metric=vall/bound: unknown; did you mean val/bound?"),
        (["--sort", "second"], "--sort=second: unknown; did you mean seconds?"),
        (["--by", "sampler.num_stps"], "--by=sampler.num_stps: unknown; did you mean sampler.num_steps?"),
        (["--filter", "sampler"], "--filter=sampler: is no condition; write key=value"),
        (["--filter", "samplr=hmc"], "--filter=samplr: unknown; did you mean sampler?"),
        (["--filter", "sampler=hmm"], "--filter=sampler=hmm: none of 9 runs is like that; ask for less"),
        (["--filter", "seed<x"], "--filter=seed<x: x is no number"),
        (["--error", "var"], "--error=var: expected sd, se or ci"),
        (["--confidence", "95"], "--confidence=95.0: must lie between 0 and 1"),
        (["--format", "latx"], "--format=latx: unknown format; did you mean latex?"),
        (["--format", "csv", "--importance"], "--importance: a CSV file holds one table; take --format json"),
        (["--output", "no/where.csv"], "--output=no/where.csv: there is no directory no"),
        (["--output", "table.xyz"], "--output=table.xyz: end its name in .csv, .json, .md, .tex or .txt"),
        (["--output", "empty"], "--output=empty: is a directory; name a file in it"),
        (["--plot", "x.gif"], "--plot=x.gif: end its name in .png, .pdf or .svg"),
        (["--paired", "langevin"], "--paired=langevin: no such method; there are 'sampler=hmc"),
        (["--colour"], "unrecognized arguments: --colour; `metvae compare --help` shows what may be said"),
    ],
)
def test_a_bad_word_is_one_line(
    sweep: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    assert cli.main(["compare", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"metvae: error: {message}")
    assert captured.err.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_file_that_cannot_be_written(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--output", "/dev/full"]) == 2
    assert "--output=/dev/full: cannot be written (No space left on device)" in capsys.readouterr().err


def test_only_failures_are_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep_file(tmp_path, ["sampler=hmc,none"])
    assert cli.main(["compare", str(tmp_path)]) == 2
    assert "no run got as far as its configuration; the first says: sampler=hmc" in capsys.readouterr().err


def test_evaluations_alone_are_sent_to_their_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "evaluation.json", {"run": "/some/run", "estimators": {}})
    write(tmp_path / "status.json", {"status": "finished"})
    assert cli.main(["compare", str(tmp_path)]) == 2
    assert "only evaluations are there; name their runs too, like /some/run" in capsys.readouterr().err


def test_help_teaches_by_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--help"]) == 0
    output = capsys.readouterr().out
    assert sum(line.startswith("  metvae compare ") for line in output.splitlines()) >= 5
    assert all(len(line) <= 120 for line in output.splitlines())


def test_nothing_heavy_is_imported_for_a_table(sweep: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "metvae_cli.cli", "compare", str(sweep)]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert imported & {"torch", "hydra", "omegaconf", "matplotlib", "tensorboard"} == set()
