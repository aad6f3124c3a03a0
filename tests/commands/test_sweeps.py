"""Sweeps: what directories are called, what failed, and how a sweep that was cut off goes on."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from metvae_cli.commands.job_name import job_name
from metvae_cli.errors import ConfigError
from metvae_cli.schema import Spine, call
from metvae_cli.tracking.run_directory import RunDirectory, stop_file
from tests.endings import assert_same_end, jobs_of, status, times, wait_for_epoch
from tests.runs import TINY, command, environment, files, infer, metvae, start, train

WORDS = (*TINY, "trainer.max_epochs=5", "trainer.checkpoint_seconds=0.1", "seed=0,1,2")

SHORT = ("trainer.max_epochs=1", "trainer.test_samples=1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "same", "expected"),
    [
        (["sampler=hmc", "seed=1", "latent_dim=2"], ["latent_dim"], "03_sampler=hmc,seed=1"),
        (["latent_dim=2"], ["latent_dim"], "03"),
        (["+sampler@chain=hmc", "~prior"], [], "03_sampler-chain=hmc,prior"),
        (["dataset.path='my files/ä b.npy'"], [], "03_dataset.path=my-files-b.npy"),
        (["encoder.hidden=[16,32]", "optimizer.lr=-1e-3"], [], "03_encoder.hidden=16-32,optimizer.lr=-1e-3"),
        (["dataset.path='a=b,c'"], [], "03_dataset.path=a-b-c"),
        (["trainer.max_epochs=${seed}"], [], "03_trainer.max_epochs=seed"),
        (["dataset.path=../../etc"], [], "03_dataset.path=..-..-etc"),
        (["plugins=" + "x" * 300], [], "03_plugins=" + "x" * 89),
    ],
)
def test_a_job_is_named_by_what_makes_it_different(words: list[str], same: list[str], expected: str) -> None:
    assert job_name(3, words, same) == expected


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `sweep`, which was let run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert metvae("train", "-m", *WORDS, "hydra.sweep.dir=sweep") == 0
    return folder


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(here: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(here, "train", "-m", *WORDS, "hydra.sweep.dir=sweep")
    sweep = here / "sweep"
    wait_for_epoch(sweep / "01_seed=1", 1)
    process.kill()
    process.communicate()
    assert [job.name for job in jobs_of(sweep)] == ["00_seed=0", "01_seed=1"]
    assert status(sweep / "01_seed=1") == "running"
    before = times(sweep / "00_seed=0")
    assert metvae("train", "-m", *WORDS, "sweep.resume=sweep") == 0
    printed = capsys.readouterr()
    assert times(sweep / "00_seed=0") == before
    assert "00_seed=0: finished already" in printed.err
    assert "sweep: 3 finished" in printed.out
    assert "sweep.resume" not in printed.out
    assert len(json.loads((sweep / "01_seed=1" / "manifest.json").read_text())["starts"]) == 2
    for job in ("00_seed=0", "01_seed=1", "02_seed=2"):
        assert_same_end(sweep / job, finished / "sweep" / job)
    assert {path.name for path in sweep.iterdir()} == {path.name for path in (finished / "sweep").iterdir()}


def test_a_job_without_a_checkpoint_begins_anew_and_one_that_lives_is_left_alone(
    finished: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "sweep", here / "sweep")
    cut, alive = here / "sweep" / "01_seed=1", here / "sweep" / "02_seed=2"
    for job in (cut, alive):
        shutil.rmtree(job / "checkpoints")
        (job / "status.json").write_text('{"status": "running", "reason": "", "time": ""}')
    (cut / ".lock").write_text(f"{os.uname().nodename} 999999999")
    (alive / ".lock").write_text(f"{os.uname().nodename} {os.getppid()}")
    before = times(alive)
    assert metvae("train", "sweep.resume=sweep") == 1  # its words are those stored
    printed = capsys.readouterr()
    assert "02_seed=2: is left to another process" in printed.err
    assert "sweep: 2 finished, 1 running" in printed.out
    assert times(alive) == before
    assert_same_end(cut, finished / "sweep" / "01_seed=1")
    assert len(list(cut.glob("events*"))) == 1
    assert "best validation bound" in printed.out


def test_a_job_whose_last_checkpoint_is_gone_goes_on_from_its_best(finished: Path, here: Path) -> None:
    shutil.copytree(finished / "sweep", here / "sweep")
    job = here / "sweep" / "01_seed=1"
    (job / "checkpoints" / "last.pt").unlink()
    (job / "status.json").write_text('{"status": "interrupted", "reason": "", "time": ""}')
    assert metvae("train", "sweep.resume=sweep") == 0
    assert "goes on from best.pt" in (job / "train.log").read_text()


def test_a_job_that_another_process_begins_at_the_same_time_is_left_to_it(
    finished: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "sweep", here / "sweep")
    job = here / "sweep" / "01_seed=1"
    shutil.rmtree(job / "checkpoints")
    (job / "status.json").write_text('{"status": "running", "reason": "", "time": ""}')
    holder, before = RunDirectory.holder, {}

    def looked_at_too_early(run: RunDirectory) -> str:
        if run.path.name == job.name and not before:
            (job / ".lock").write_text(f"{os.uname().nodename} {os.getppid()}")
            before.update(times(job))
            return ""
        return holder(run)

    monkeypatch.setattr(RunDirectory, "holder", looked_at_too_early)
    assert metvae("train", "sweep.resume=sweep") == 1
    assert "01_seed=1: is left to another process" in capsys.readouterr().err
    assert status(job) == "running"
    after = times(job)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed <= {"train.log", ".", ".hydra"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "seed=0,1", "sweep.resume=sweep"), ("was started with other words", "seed=0,1,2", "start a new sweep")),
        (("-m", *reversed(WORDS), "sweep.resume=sweep"), ("was started with other words",)),
        (("sweep.resume=.",), ("sweep.json is missing",)),
        (("sweep.resume=sweep/00_seed=0",), ("sweep.json is missing", "resume=sweep/00_seed=0")),
        (("sweep.resume=",), ("names no directory",)),
        (("-m", "seed=0,1", "hydra.sweep.dir=sweep"), ("holds a run already", "sweep.resume=sweep")),
        (("-m", "seed=0,1", "smapler=hmc"), ("smapler: unknown key", "sampler")),
        (("-m", "seed=0,1", "sampler=hmc,hcm"), ("sampler=hcm", "hmc")),
        (("-m", "seed=0,1", "hydra/launcher=jolbib"), ("no such choice", "joblib")),
        (("resume=sweep/00_seed=0", "sweep.resume=sweep"), ("sweep.resume=sweep: cannot be changed",)),
    ],
)
def test_wrong_words_give_one_line_and_leave_nothing(
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: tuple[str, ...],
) -> None:
    monkeypatch.chdir(finished)
    before = times(finished)
    assert metvae("train", *words) == 2
    printed = capsys.readouterr()
    assert all(part in printed.err.splitlines()[-1] for part in said)
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert times(finished) == before


def test_a_sweep_belongs_to_its_command(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert metvae("infer", f"sweep.resume={finished / 'sweep'}") == 2
    assert "is a sweep of `metvae train`" in capsys.readouterr().err


def test_a_stored_word_makes_no_code_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("plugins=[os]", "hydra.callbacks.x._target_=os.abort", "target.path=a.py:f", "+x=1"):
        (here / "sweep.json").write_text(json.dumps({"command": "train", "words": ["seed=0,1", word]}))
        assert metvae("train", "sweep.resume=.") == 2
        assert f"{word} counts on the command line only" in capsys.readouterr().err
    assert files(here) == {"sweep.json"}


def test_two_processes_share_no_sweep(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = finished / "sweep" / ".lock"
    lock.write_text(f"{os.uname().nodename} {os.getppid()}")
    try:
        assert metvae("train", f"sweep.resume={finished / 'sweep'}") == 2
    finally:
        lock.unlink()
    assert "in use by another run" in capsys.readouterr().err


@pytest.mark.parametrize("node", [{"resume": "x"}, {"x": 1}])
def test_a_file_says_nothing_of_sweeps(node: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"sweep\."):
        call(Spine, {"seed": 0, "latent_dim": 2, "sweep": node}, "")


@pytest.mark.slow
def test_jobs_of_infer_fail_alone_and_are_skipped_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("-m", "objective=none", "sampler=hmc", "target=banana,funnel", "seed=0,-1")
    assert infer(*words, "hydra.sweep.dir=sweep") == 1
    assert [status(job) for job in jobs_of(here / "sweep")] == ["finished", "failed"] * 2
    before = times(here / "sweep" / "00_target=banana,seed=0")
    capsys.readouterr()
    assert infer(*words, "sweep.resume=sweep") == 1
    assert capsys.readouterr().err.count("finished already") == 2
    assert times(here / "sweep" / "00_target=banana,seed=0") == before


def test_directories_of_the_users_own_making(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "-m",
        "seed=range(1,12,5)",
        "trainer.max_epochs=-1",
        "hydra.sweep.subdir=a/${seed}",
        "hydra.sweep.dir=sweep",
    )
    assert train(*words) == 1
    printed = capsys.readouterr().out
    assert printed.index("a/1 ") < printed.index("a/6 ") < printed.index("a/11 ")
    (here / "sweep" / ".lock").write_text(f"{socket.gethostname()} {os.getppid()}")  # as while it lasts
    assert stop_file(here / "sweep" / "a" / "1") == here / "sweep" / ".stop"
    assert stop_file(here) is None


# Launchers


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=local_jobs",), ("hydra/launcher=local_processes",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_every_job_after_it_has_saved(
    tmp_path: Path, finished: Path, launcher: tuple[str, ...], number: signal.Signals
) -> None:
    words = (*WORDS, *launcher, "hydra.sweep.dir=sweep", "hydra.sweeper.max_batch_size=2")
    process = start(tmp_path, "train", "-m", *words)
    sweep = tmp_path / "sweep"
    for job in ("00_seed=0", "01_seed=1")[: 2 if launcher else 1]:
        wait_for_epoch(sweep / job, 1)
    sent = time.monotonic()
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert time.monotonic() - sent < 15
    assert (process.returncode, "Traceback" in errors) == (128 + number, False), errors
    assert {status(job) for job in jobs_of(sweep)} <= {"interrupted", "finished"}
    assert not (sweep / "02_seed=2").exists()
    assert "sweep.resume=sweep" in printed.splitlines()[-1]
    assert not {".stop", ".lock"} & files(sweep)
    again = command("train", "-m", *WORDS, "sweep.resume=sweep")
    subprocess.run(again, cwd=tmp_path, env=environment(), capture_output=True, check=True)
    for job in ("00_seed=0", "01_seed=1", "02_seed=2"):
        assert_same_end(sweep / job, finished / "sweep" / job)


@pytest.mark.slow
def test_a_job_that_a_cluster_puts_back_into_the_queue_resumes(tmp_path: Path, finished: Path) -> None:
    """The signal that submitit has Slurm send before a job's time is over, and to a job that is to make room."""
    words = (*WORDS, "hydra/launcher=local_processes", "hydra.sweep.dir=sweep", "hydra.sweeper.max_batch_size=1")
    process = start(tmp_path, "train", "-m", *words)
    job = tmp_path / "sweep" / "00_seed=0"
    wait_for_epoch(job, 1)
    os.kill(int((job / ".lock").read_text().split()[1]), signal.SIGUSR2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(json.loads((job / "manifest.json").read_text())["starts"]) == 2
    assert_same_end(job, finished / "sweep" / job.name)


@pytest.mark.slow
def test_a_process_of_joblib_that_is_killed_costs_no_job_its_run(here: Path, finished: Path) -> None:
    """Something kills it (the operating system, out of memory): loky ends the others too, and all go on anew."""
    sweep = here / "sweep"
    launcher = ("hydra/launcher=local_jobs", "hydra.launcher.n_jobs=2")
    process = start(here, "train", "-m", *WORDS, "trainer.threads=1", *launcher, "hydra.sweep.dir=sweep")
    wait_for_epoch(sweep / "01_seed=1", 1)
    os.kill(int((sweep / "01_seed=1" / ".lock").read_text().split()[1]), signal.SIGKILL)
    printed, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "a job's process was killed, and others with it: they go on in new ones" in errors
    assert "sweep: 3 finished" in printed
    for job in ("00_seed=0", "01_seed=1", "02_seed=2"):
        assert_same_end(sweep / job, finished / "sweep" / job)
