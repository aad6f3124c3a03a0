"""`kill -9` at any instant of a run, which a resume then ends where the run that nobody touched ends, bit by bit."""

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from metvae_cli.tracking.metrics_csv import MetricsFile
from tests.faults.deaths import Death
from tests.faults.processes import LONGEST, await_that, ended, metvae_process
from tests.faults.whole_runs import assert_monotone, assert_same_run
from tests.runs import TINY, metvae

WORDS = (*TINY, "trainer.max_epochs=3", "trainer.checkpoint_seconds=0.02", "trainer.log_every=5")
NEW = ("train", *WORDS, "trainer.picture_every=1", "hydra.run.dir=run")
RESUMED = ("train", "resume=run")
KILLED = -9


class Straight(NamedTuple):
    """The run that nobody touched, and the seconds from its first checkpoint to its end."""

    folder: Path
    seconds: float


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Straight:
    here = tmp_path_factory.mktemp("straight")
    seconds = killed_after(here, NEW, LONGEST)
    assert seconds is not None
    return Straight(here / "run", seconds)


def killed_after(here: Path, words: tuple[str, ...], delay: float) -> float | None:
    """Kill so many seconds after the process has a checkpoint and has said that it is there.

    Returns None, or the seconds it took to its end if that came before.
    """
    starts = starts_of(here / "run")
    process = metvae_process(here, *words)
    last = here / "run" / "checkpoints" / "last.pt"
    await_that(lambda: last.exists() and starts_of(here / "run") > starts, process)
    begun = time.monotonic()
    process.join(delay)
    process.kill()
    if ended(process) == KILLED:
        return None
    assert process.exitcode == 0, (here / "said.txt").read_text()
    return time.monotonic() - begun


def starts_of(folder: Path) -> int:
    """How often the run was begun or gone on with."""
    path = folder / "manifest.json"
    return len(json.loads(path.read_text())["starts"]) if path.exists() else 0


def kill(here: Path, words: tuple[str, ...], share: float, seconds: float) -> None:
    """Kill a run after a share of the seconds that it takes."""
    for _ in range(10):
        if (shorter := killed_after(here, words, share * seconds)) is None:
            return
        seconds = 0.9 * shorter  # this time it was quicker
        if words == NEW:
            shutil.rmtree(here / "run")
    raise AssertionError("could not be killed")


def resume(here: Path) -> None:
    assert ended(metvae_process(here, *RESUMED)) == 0, (here / "said.txt").read_text()


def kill_and_resume(here: Path, straight: Straight, seed: int, kills: int = 1) -> None:
    """Kill at random instants, each time further on, then resume to the end."""
    generator = random.Random(seed)
    for number in range(kills):
        share = generator.random() if kills == 1 else generator.uniform(0, 0.4)
        where = f"seed {seed}, kill {number + 1} after {share:.3f} of {straight.seconds:.2f} s"
        try:
            kill(here, RESUMED if number else NEW, share, straight.seconds)
            assert_monotone(here / "run")
            if number == kills - 1:
                resume(here)
                assert_same_run(here / "run", straight.folder)
        except AssertionError as error:
            raise AssertionError(where) from error


@pytest.mark.parametrize("seed", [0])
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path, straight: Straight, seed: int) -> None:
    kill_and_resume(tmp_path, straight, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 25))
def test_a_run_that_is_killed_at_any_instant_ends_as_if_it_had_not_been(
    tmp_path: Path, straight: Straight, seed: int
) -> None:
    kill_and_resume(tmp_path, straight, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    tmp_path: Path, straight: Straight, seed: int
) -> None:
    kill_and_resume(tmp_path, straight, seed, kills=5)


# What the judge sees


WRONG: dict[str, tuple[str, Callable[..., object]]] = {
    "no random state": ("metvae_cli.training.trainer.restore_random_states", lambda states: None),
    "no moments": ("metvae_cli.training.trainer.restore_optimizer", lambda optimizer, content: None),
    "rows twice": ("metvae_cli.commands.train_run.MetricsFile", lambda path, position: MetricsFile(path, 10**9)),
    "events twice": ("metvae_cli.tracking.tensorboard.cut_back", lambda folder, step, anew: set()),
    "unfinished files stay": ("metvae_cli.tracking.run_directory.discard_unfinished", lambda folder: None),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, straight: Straight) -> Path:
    """The folder of a run that died between the rows and events of its second epoch and the checkpoint after them."""
    here = tmp_path_factory.mktemp("killed")

    process = metvae_process(
        here, *NEW, "trainer.checkpoint_seconds=1000", prepare=Death("written", ".last.pt.*.tmp", 3)
    )
    assert ended(process) == KILLED
    return here


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in WRONG])
def test_a_wrong_resume_is_seen(
    tmp_path: Path, straight: Straight, killed: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(killed / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(*WRONG[name])
        assert metvae(*RESUMED) == 0
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", straight.folder)


@pytest.mark.slow
def test_the_right_resume_is_let_pass(
    tmp_path: Path, straight: Straight, killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(killed / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert metvae(*RESUMED) == 0
    assert_same_run(tmp_path / "run", straight.folder)


# Before the first checkpoint


@pytest.mark.slow
@pytest.mark.parametrize(
    "death",
    [
        Death("half", ".last.pt.*.tmp", 1),
        pytest.param(Death("half", ".manifest.json.*.tmp", 1), marks=pytest.mark.slow),
        pytest.param(Death("half", ".status.json.*.tmp", 1), marks=pytest.mark.slow),
        pytest.param(Death("replaced", "status.json", 1), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_that_is_killed_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, straight: Straight, death: Death
) -> None:
    assert ended(metvae_process(tmp_path, *NEW, prepare=death)) == KILLED
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()
    resume(tmp_path)
    assert_same_run(tmp_path / "run", straight.folder)


@pytest.mark.slow
def test_a_run_that_is_killed_before_its_words_are_stored_is_started_again(tmp_path: Path, straight: Straight) -> None:
    assert ended(metvae_process(tmp_path, *NEW, prepare=Death("half", ".config.yaml.*.tmp", 1))) == KILLED
    assert ended(metvae_process(tmp_path, *RESUMED)) == 2
    said = (tmp_path / "said.txt").read_text().splitlines()
    (line,) = said
    assert line.startswith("metvae: error: resume=run: no run is there (.hydra/config.yaml is missing); ")
    assert ended(metvae_process(tmp_path, *NEW)) == 0
    assert_same_run(tmp_path / "run", straight.folder)


@pytest.mark.parametrize("left", [pytest.param("metrics.csv"), pytest.param("summary.json", marks=pytest.mark.slow)])
def test_a_run_whose_checkpoints_were_taken_away_is_not_begun_anew(
    tmp_path: Path, straight: Straight, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    shutil.copytree(straight.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / {"metrics.csv": "summary.json", "summary.json": "metrics.csv"}[left]).unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    assert metvae(*RESUMED) == 2
    assert "last.pt: cannot be read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
