"""Sweeps: what directories are called, who runs the jobs, what failed, and how a sweep that was cut off goes on."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from metvae_cli.commands import sweep_plan
from metvae_cli.commands.job_name import job_name
from metvae_cli.commands.sweep_plan import plan_sweep
from metvae_cli.errors import ConfigError
from metvae_cli.schema import Spine, call
from metvae_cli.tracking.run_directory import stop_file
from tests.endings import assert_same_end, jobs_of, status, times, wait_for_epoch
from tests.runs import TINY, command, environment, files, infer, metvae, own_globals, start, train

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
    assert stop_file(here / "sweep" / "a" / "1") == here / "sweep" / ".stop"
    assert stop_file(here) is None


# Launchers


@pytest.mark.parametrize(
    ("words", "processes", "threads"),
    [
        ((), 0, None),
        (("hydra/launcher=joblib",), 6, 1),
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=3"), 3, 2),
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=-5"), 4, 2),
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=1"), 0, None),
        (("hydra/launcher=local_jobs",), 2, 4),
        (("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"), 2, 4),
        (("hydra/launcher=local_processes",), 6, 1),
        (("hydra/launcher=slurm",), 6, 4),
        (("hydra/launcher=submitit_slurm",), 6, None),
    ],
)
def test_threads_are_shared_out(
    words: tuple[str, ...], processes: int, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_plan, "_cores", lambda: 8)
    monkeypatch.setenv("METVAE_STAMP", "now")
    with own_globals():
        plan = plan_sweep("train", ["-m", "seed=range(0,3)", "sampler=hmc,langevin", *words])
    assert (plan.jobs, plan.processes, plan.threads) == (6, processes, threads)
    assert plan.same == []


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "submitit_slurm", "local_jobs", "slurm"])
def test_a_launcher_that_is_not_installed_is_named(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Plugins.instance()
    known = ConfigStore.instance().repo["hydra"]["launcher"]
    for plugin in ("joblib", "submitit_local", "submitit_slurm"):
        monkeypatch.delitem(known, f"{plugin}.yaml")
    assert train("-m", "seed=0,1", f"hydra/launcher={name}") == 2
    assert "is not installed; pip install 'metvae[sweep]'" in capsys.readouterr().err.splitlines()[0]
    assert files(here) == set()


def sweep_in_a_process(here: Path, *words: str, threads: str = "1") -> "subprocess.CompletedProcess[str]":
    everything = command("train", "-m", *TINY, *SHORT, *words, "hydra.sweep.dir=sweep")
    many = environment() | {"OMP_NUM_THREADS": threads}
    return subprocess.run(everything, cwd=here, env=many, capture_output=True, text=True)


def test_jobs_side_by_side_share_the_machine_and_the_terminal(tmp_path: Path) -> None:
    words = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "encoder.hidden=[512,512]", "optimizer.lr=1e-3,-1")
    result = sweep_in_a_process(tmp_path, *words, threads="64")
    good, bad = jobs_of(tmp_path / "sweep")
    assert (result.returncode, status(good), status(bad)) == (1, "finished", "failed")
    assert f"{bad.name} failed: optimizer.lr=-1" in result.stderr
    assert f"{good.name}: finished" in result.stderr
    assert "epoch 1" not in result.stderr  # which of them that is, nobody could tell
    assert "epoch 1" in (good / "train.log").read_text()
    assert "optimizer.lr=-1" in (bad / "train.log").read_text()
    assert "test bound" not in result.stdout
    assert "sweep: 1 finished, 1 failed" in result.stdout
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert f"cpu, {share} threads" in (good / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "local_processes"])
def test_jobs_that_submitit_starts_on_this_machine(tmp_path: Path, launcher: str) -> None:
    result = sweep_in_a_process(tmp_path, f"hydra/launcher={launcher}", "seed=0,-1")
    assert [status(job) for job in jobs_of(tmp_path / "sweep")] == ["finished", "failed"]
    assert (result.returncode, "sweep: 1 finished, 1 failed" in result.stdout) == (1, True)
    manifest = json.loads((tmp_path / "sweep" / "00_seed=0" / "manifest.json").read_text())
    assert manifest["starts"][0]["argv"][:3] == ["metvae", "train", "-m"]


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


def test_what_slurm_is_asked_for(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = here / "programs"
    programs.mkdir()
    for name, text in (("srun", "exit 0"), ("sbatch", f'cp "$1" {here}/script; exit 1')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert train("-m", "seed=0,1,2", "hydra/launcher=slurm", "hydra.launcher.partition=gpu") == 1
    asked = {line.removeprefix("#SBATCH --") for line in (here / "script").read_text().splitlines()}
    resources = {"array=0-2%3", "cpus-per-task=4", "gpus-per-node=1", "mem=16GB", "time=1440", "partition=gpu"}
    assert asked >= resources | {"signal=USR2@120", "nodes=1", "job-name=train"}
    assert any("submitit.core._submit" in line for line in asked)
    assert "not every job could be run" in capsys.readouterr().err.splitlines()[-1]


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
