"""Directories that cannot be had, which is said before anything is trained, and names that want quotes."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.endings import status
from tests.faults.mounts import mounted
from tests.runs import files, metvae, train

SHORT = ("trainer.max_iterations=1", "trainer.test_data=2", "trainer.test_samples=1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a refusal that leaves nothing behind."""
    before = files(Path())
    capsys.readouterr()
    assert metvae(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("metvae: error: ")
    assert files(Path()) == before
    return line


def a_file() -> None:
    Path("place").write_text("")


def a_loop() -> None:
    Path("place").symlink_to("other")
    Path("other").symlink_to("place")


def a_link_to_nothing() -> None:
    Path("place").symlink_to("gone")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (a_file, "place"),
        (a_file, "place/run"),
        (a_loop, "place"),
        (a_loop, "place/run"),
        (a_link_to_nothing, "place"),
    ],
)
def test_what_is_no_directory_is_named(
    make: Callable[[], None], name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    line = refusal(capsys, "train", *SHORT, f"hydra.run.dir={name}")
    assert f"{name}: cannot be written (" in line
    assert "choose another directory" in line


@pytest.mark.parametrize("name", ["", "''"])
def test_no_name_is_no_directory(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "infer", "sample", "evaluate"):
        assert "hydra.run.dir=: names no directory" in refusal(capsys, command, f"hydra.run.dir={name}")


@pytest.mark.parametrize("name", ["disk", "disk/run"])
def test_a_read_only_disk_is_said(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mounted(here / "disk", "ro"):
        for words in (("train",), ("infer",)):
            line = refusal(capsys, *words, f"hydra.run.dir={name}")
            assert "cannot be written (Read-only file system)" in line


def test_a_directory_without_permission_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not os.getuid():
        pytest.skip("permissions do not hold for root")
    (here / "place").mkdir(mode=0o555)
    assert "place/run: cannot be written (Permission denied)" in refusal(capsys, "train", "hydra.run.dir=place/run")


def test_the_working_directory_may_be_the_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*SHORT, "hydra.run.dir=.") == 0
    assert status(here) == "finished"


QUICK = ["a=b,c", "it's"]
SLOW = ["a b", "é 雪", "a=b", "a,b", 'a"b', "a[b]", "a{b}", "a#b", "(a)", "a$b c", "~a"]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_directory_with_an_odd_name_works_as_typed_or_as_the_error_says(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*SHORT, "sampler=none", "objective=elbo", "sampler.num_steps=0")
    if train(*words, f"hydra.run.dir={name}") == 2:
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"metvae: error: hydra.run.dir={name}: ")
        assert files(here) == set()
        advice = line[line.rindex(' "hydra.run.dir=') :]
        (word,) = shlex.split(advice.replace(r"\$", "$"))  # as a shell reads it
        assert train(*words, word) == 0
    assert status(here / name) == "finished"
    printed = capsys.readouterr().out.splitlines()
    (pictures,) = (line for line in printed if line.startswith("pictures "))
    assert metvae(*shlex.split(pictures)[2:], "pictures=[prior]", "count=1", "hydra.run.dir=P") == 0
    assert metvae("train", f"resume={name}", "trainer.max_iterations=2") == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["it's.npy", "a,b.npy", "a=b.npy", "a[b] c.npy"])
def test_data_with_an_odd_name_are_found_as_the_error_says(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(name, np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    words = ("likelihood=gaussian", "dataset.num_valid=10", "dataset.num_test=10", "hydra.run.dir=run", *SHORT)
    line = refusal(capsys, "train", "dataset=array", f"dataset.path={name}", *words)
    (word,) = shlex.split(line[line.rindex(' "dataset.path=') :])
    assert train("dataset=array", word, *words) == 0
    assert metvae("train", "resume=run", "trainer.max_iterations=2") == 0
