"""Directories of runs that may be anybody's: read by `metvae compare`, and their event files by a resume."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metvae_cli import cli
from metvae_cli.commands.sweep_table import print_sweep, standing
from metvae_cli.errors import RunError
from metvae_cli.tracking.event_files import PREFIX, cut_back, record_of
from tests.comparison.written import write_run
from tests.faults.memory import MEGABYTE, peak_growth
from tests.tracking.boards import steps_by_tag
from tests.tracking.test_event_files import write as write_events

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


def huge(path: Path) -> None:
    """As `sparse`, of more than is read."""
    path.touch()
    os.truncate(path, 2**36)


def outside(path: Path) -> Path:
    return path.parents[1] / "outside"


NO_EVENTS: dict[str, Callable[[Path], object]] = {
    "no writer": os.mkfifo,
    "no end": lambda path: path.symlink_to("/dev/zero"),
    "a directory": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "sixty-four gigabytes": huge,
}
DAMAGED_EVENTS: dict[str, Callable[[Path], object]] = {
    "noise": lambda path: path.write_bytes(bytes(range(7, 256)) * 40),
    "a record of 2**63 bytes": lambda path: path.write_bytes(struct.pack("<Q", 2**63) + bytes(100)),
    "a record of 2**64 - 16 bytes": lambda path: path.write_bytes(struct.pack("<Q", 2**64 - 16) + bytes(100)),
    "a record that is no event": lambda path: path.write_bytes(record_of(b"\xff" * 50)),
    "a link to noise": lambda path: (outside(path).write_bytes(b"precious"), path.symlink_to(outside(path))),
}


@pytest.mark.parametrize("kind", NO_EVENTS)
def test_what_is_no_event_file_is_refused_by_a_resume(kind: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    own = write_events(tmp_path / "run", 1, 2)
    before, odd = own.read_bytes(), tmp_path / "run" / f"{PREFIX}x"
    NO_EVENTS[kind](odd)

    def attempt() -> None:
        with pytest.raises(RunError, match="remove it, then resume") as caught:
            cut_back(tmp_path / "run", 1, lambda tag: False)
        assert str(odd) in str(caught.value)

    assert peak_growth(attempt) < 20 * MEGABYTE
    assert own.read_bytes() == before
    assert odd.is_symlink() or odd.exists()


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("kind", DAMAGED_EVENTS)
def test_damaged_event_files_are_cut_away_by_a_resume(kind: str, first: bool, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_events(tmp_path / "run", 1, 2, 3)
    DAMAGED_EVENTS[kind](tmp_path / "run" / f"{PREFIX}{10**9 if first else 9 * 10**9}.x")
    assert peak_growth(lambda: cut_back(tmp_path / "run", 2, lambda tag: False)) < 20 * MEGABYTE
    assert steps_by_tag(tmp_path / "run") == {"a": [1, 2], "final/b": [1, 2]}
    assert not outside(tmp_path / "run" / "x").exists() or outside(tmp_path / "run" / "x").read_bytes() == b"precious"
    assert not any(path.is_symlink() for path in (tmp_path / "run").iterdir())


def test_a_link_to_the_events_of_another_run_is_read_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    theirs = write_events(tmp_path, 1, 2, 3)
    before = theirs.read_bytes()
    (tmp_path / "run" / f"{PREFIX}1000000000.x").symlink_to(theirs)
    cut_back(tmp_path / "run", 2, lambda tag: False)
    assert theirs.read_bytes() == before
    assert steps_by_tag(tmp_path / "run")["a"] == [1, 2]


def test_the_table_of_a_sweep_says_nothing_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write_run(tmp_path / f"x{ESCAPE}", status="failed")
    for entries in ({"status": "failed", "reason": ESCAPE}, {"status": ESCAPE, "reason": "x"}, {"status": [1]}):
        (job / "status.json").write_text(json.dumps(entries))
        print_sweep("train", tmp_path, [standing(job)], 0, "")
        printed = capsys.readouterr().out
        assert "sweep: 1 " in printed
        assert not set("\x1b\x07\x9b\u202e") & set(printed)
