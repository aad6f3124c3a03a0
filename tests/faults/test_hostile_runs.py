"""Directories of runs that may be anybody's, read by `metvae compare`: damaged, absurd, with words for a terminal."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metvae_cli import cli
from tests.comparison.written import write_run
from tests.faults.memory import MEGABYTE, peak_growth

# Sets a terminal's title, clears it, writes in red; the last again in eight-bit codes, and text that runs backwards.
ESCAPE = "\x1b]0;title\x07\x1b[2J\x1b[31m\x9b31m\u202e"
COSTS = "epoch,seconds,decoder_evaluations,val/bound\n"


def changed(name: str, **entries: Any) -> Callable[[Path], object]:
    """Writes entries of a JSON file anew."""
    return lambda run: (run / name).write_text(json.dumps({**json.loads((run / name).read_text()), **entries}))


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(run: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return replace


def sparse(path: Path) -> None:
    """A file that says that it has 4 GiB, and takes no room."""
    path.touch()
    os.truncate(path, 2**32)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "configuration: a list": changed("manifest.json", config=[1]),
    "configuration: text": changed("manifest.json", config="x"),
    "trainer: a list": changed("manifest.json", config={"trainer": [1]}),
    "replicas: text": changed("manifest.json", config={"trainer": {"replicas": "x"}}),
    "methods: a number": changed("manifest.json", config={"methods": 3}),
    "seed: text": changed("manifest.json", seed="x"),
    "seed: a list": changed("manifest.json", seed=[1]),
    "data: a list": changed("manifest.json", data=[1]),
    "lists in lists": text("manifest.json", '{"config":' + "[" * 100_000),
    "objects in objects": text("manifest.json", '{"config":' + '{"a":' * 500 + "1" + "}" * 501),
    "no text": text("manifest.json", b"\xff\xfe"),
    "half a letter": changed("manifest.json", config={"a": "\ud800"}),
    "NaN": changed("summary.json", **{"val/bound": float("nan")}),
    "infinity": changed("summary.json", **{"val/bound": float("inf")}),
    "1e400": text("summary.json", '{"val/bound": 1e400, "test/nll": -1e400}'),
    "10**400": changed("summary.json", **{"val/bound": 10**400, "test/nll": -(10**400)}),
    "5000 digits": text("summary.json", '{"val/bound": ' + "9" * 5000 + "}"),
    "a metric's name": changed("summary.json", **{f"{ESCAPE}x": 1.0}),
    "a value": changed("manifest.json", config={"seed": 0, "latent_dim": ESCAPE}),
    "a key": changed("manifest.json", config={"seed": 0, ESCAPE: 1}),
    "a state": changed("status.json", status=ESCAPE),
    "a reason": changed("status.json", status="failed", reason=ESCAPE),
    "a choice": text(".hydra/hydra.yaml", f"hydra:\n  runtime:\n    choices:\n      sampler: {ESCAPE}\n"),
    "a folder": lambda run: write_run(run / f"x{ESCAPE}", status="failed"),
    "long lines": text("metrics.csv", f"epoch\0,,\n{'x' * 300_000}\n"),
    "curves of nothing": text("metrics.csv", COSTS + "nan,inf,-1,1e400\n" * 3),
    "an evaluation of lists": text("evaluation.json", '{"run": [1], "estimators": [1]}'),
    "an evaluation of numbers": text("evaluation.json", '{"run": "x", "estimators": {"a": 3}}'),
    "no end": replaced("summary.json", lambda path: path.symlink_to("/dev/zero")),
    "no writer": replaced("summary.json", os.mkfifo),
    "four gigabytes": replaced("summary.json", sparse),
    "a directory": replaced("summary.json", lambda path: path.mkdir()),
    "itself": lambda run: (run / "loop").symlink_to(run),
    "10**18 jobs": text(
        "multirun.yaml",
        "hydra:\n  overrides:\n    task:\n"
        + "".join(f"    - a{i}={','.join(map(str, range(100)))}\n" for i in range(9))
        + "  job:\n    config_name: train\n",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_hostile_is_a_damaged_run_beside_a_good_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "good", curve=[-3.0, -2.0])
    write_run(tmp_path / "runs" / "bad", 1)
    HOSTILE[kind](tmp_path / "runs" / "bad")
    words = ["compare", "runs", *(["--plot", "plot.png"] if "curves" in kind or "lines" in kind else [])]
    told: list[int] = []
    assert peak_growth(lambda: told.append(cli.main(words))) < 150 * MEGABYTE
    captured = capsys.readouterr()
    assert told == [0], captured.err
    assert "-30" in captured.out  # of the good one
    assert all(letter.isprintable() or letter == "\n" for letter in captured.out + captured.err)


def test_a_name_in_an_error_says_nothing_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(tmp_path / ESCAPE)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "no such directory" in line


def test_the_same_words_would_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print(ESCAPE)
    assert not capsys.readouterr().out.strip("\n").isprintable()
