"""Who runs the jobs of a sweep: launchers, threads shared out, Slurm."""

import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins

from metvae_cli.commands import sweep_plan
from metvae_cli.commands.sweep_plan import plan_sweep
from tests.endings import jobs_of, status
from tests.runs import TINY, command, environment, files, own_globals, train

WORDS = (*TINY, "trainer.max_epochs=5", "trainer.checkpoint_seconds=0.1", "seed=0,1,2")

SHORT = ("trainer.max_epochs=1", "trainer.test_samples=1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_a_process_forgets_the_last_job_of_a_launcher(here: Path) -> None:
    """The next command in it would else be taken for that job."""
    one = ("hydra/launcher=local_jobs", "hydra.launcher.n_jobs=1", "seed=0,1", "hydra.sweep.dir=sweep")
    assert train(*TINY, *SHORT, "-m", *one) == 0
    assert not HydraConfig.initialized()


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


@pytest.mark.slow
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


def processes_in(folder: Path) -> list[int]:
    """Ids of the processes whose working directory is `folder`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (place / "cwd").resolve() == folder:
                found.append(int(place.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
def test_workers_of_a_killed_sweep_end_with_their_jobs(tmp_path: Path) -> None:
    workers = ("hydra/launcher=local_jobs", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
    words = [*command(), "train", "-m", *TINY, *workers, "trainer.max_epochs=40", "seed=range(0,6)"]
    parent = subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    runs = [tmp_path / "sweep" / f"{seed:02}_seed={seed}" for seed in (0, 1)]
    deadline = time.monotonic() + 120
    while not all((run / "checkpoints" / "last.pt").exists() for run in runs):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    while processes_in(tmp_path.resolve()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
