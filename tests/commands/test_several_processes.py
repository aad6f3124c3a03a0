"""`metvae train` in several processes: one run, one directory, and an end with its reason whatever happens to one."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.endings import status, wait_for_epoch
from tests.runs import TINY, command, environment, files, start

pytest.importorskip("lightning_fabric")

SHORT = (*TINY, "dataset.num_test=1297", "dataset.num_valid=100")
TWO = (*SHORT, "trainer.devices=2")
RAISES_IN_THE_SECOND = """
import os
from metvae_cli.models.decoders import MLPDecoder

class Fragile(MLPDecoder):
    def forward(self, z):
        if self.training and os.environ.get("RANK") == "1":
            raise ValueError("the second process broke")
        return super().forward(z)
"""


def run(folder: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*words), cwd=folder, env=environment() | variables, capture_output=True, text=True, timeout=200
    )


def curve(folder: Path) -> list[dict[str, float]]:
    """metrics.csv without what the clock decides."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_curve(one: Path, other: Path) -> None:
    for first, second in zip(curve(one), curve(other), strict=True):
        for name, value in first.items():
            assert second[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def summary(folder: Path) -> dict[str, float]:
    return json.loads((folder / "summary.json").read_text())


def workers(process: "subprocess.Popen[str]") -> list[int]:
    """Process ids of those that train, in the order of their numbers."""
    listed = subprocess.run(
        ["ps", "-ww", "--ppid", str(process.pid), "-o", "pid=,args="], capture_output=True, text=True
    ).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if "spawn_main" in line]


def assert_gone(pids: list[int]) -> None:
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs by one process."""
    here = tmp_path_factory.mktemp("alone")
    result = run(here, "train", *SHORT, "trainer.max_epochs=4", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    return here / "run"


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(tmp_path: Path, alone: Path) -> None:
    result = run(tmp_path, "train", *TWO, "trainer.max_epochs=4", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "run"
    assert_same_curve(alone, folder)
    for name in ("test/nll", "test/bound", "test/effective_samples", "decoder_evaluations", "iterations"):
        assert summary(folder)[name] == pytest.approx(summary(alone)[name], rel=1e-5), name
    assert files(tmp_path) - {"run"} == {f"run/{name}" for name in without_events(alone)} | {
        name for name in files(tmp_path) if "events" in name
    }
    assert len([name for name in files(tmp_path) if "events.out" in name]) == 1
    assert status(folder) == "finished"
    assert result.stdout.count("test log-likelihood") == 1
    assert "cpu x 2" in result.stderr


def without_events(folder: Path) -> set[str]:
    return {name for name in files(folder) if "events" not in name}


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1), (2, 3)])
def test_a_checkpoint_moves_between_numbers_of_processes(tmp_path: Path, alone: Path, first: int, then: int) -> None:
    words = ("train", *SHORT, "trainer.max_epochs=2", f"trainer.devices={first}", "hydra.run.dir=run")
    assert run(tmp_path, *words).returncode == 0
    result = run(tmp_path, "train", "resume=run", "trainer.max_epochs=4", f"trainer.devices={then}")
    assert result.returncode == 0, result.stderr
    assert_same_curve(alone, tmp_path / "run")
    assert len(json.loads((tmp_path / "run" / "manifest.json").read_text())["starts"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_signal_saves_the_run_which_one_process_completes(
    tmp_path: Path, alone: Path, number: signal.Signals
) -> None:
    process = start(tmp_path, "train", *TWO, "trainer.max_epochs=2000", "hydra.run.dir=run")
    wait_for_epoch(tmp_path / "run", 2)
    pids, sent = workers(process), time.monotonic()
    assert len(pids) == 2
    process.send_signal(number)
    while status(tmp_path / "run") == "running":
        assert time.monotonic() - sent < 5
        time.sleep(0.01)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert status(tmp_path / "run") == "interrupted"
    assert_gone(pids)
    before = curve(tmp_path / "run")
    result = run(tmp_path, "train", "resume=run", f"trainer.max_epochs={len(before) + 1}", "trainer.devices=1")
    assert result.returncode == 0, result.stderr
    assert curve(tmp_path / "run")[: len(before)] == before
    assert len(curve(tmp_path / "run")) == len(before) + 1
    for expected, found in zip(curve(alone), before, strict=False):
        assert found["val/bound"] == pytest.approx(expected["val/bound"], rel=1e-5)


@pytest.mark.slow
def test_a_signal_to_one_process_while_test_data_are_measured_stops_all(tmp_path: Path) -> None:
    words = ("trainer.max_epochs=1", "trainer.test_samples=40000", "trainer.test_data=400", "hydra.run.dir=run")
    process = start(tmp_path, "train", *TWO, *words)
    wait_for_epoch(tmp_path / "run", 1)
    time.sleep(2)
    os.kill(int((tmp_path / "run" / ".lock").read_text().split()[1]), signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert status(tmp_path / "run") == "interrupted"


@pytest.mark.slow
def test_a_signal_before_training_begins_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "train", *TWO, "trainer.max_epochs=2000", "hydra.run.dir=run")
    end = time.monotonic() + 60
    while not workers(process):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists() or status(tmp_path / "run") == "interrupted"


@pytest.mark.slow
def test_ctrl_c_reaches_every_process_once(tmp_path: Path) -> None:
    """A terminal sends it to a whole group; a second one to a process that saves would end it at once."""
    process = subprocess.Popen(
        command("train", *TWO, "trainer.max_epochs=2000", "hydra.run.dir=run"),
        cwd=tmp_path,
        env=environment(),
        text=True,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for_epoch(tmp_path / "run", 2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert status(tmp_path / "run") == "interrupted"
    assert "second signal" not in json.loads((tmp_path / "run" / "status.json").read_text())["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_process_ends_the_run_with_its_reason(tmp_path: Path, victim: int) -> None:
    process = start(tmp_path, "train", *TWO, "trainer.max_epochs=2000", "hydra.run.dir=run")
    wait_for_epoch(tmp_path / "run", 2)
    pids, killed = workers(process), time.monotonic()
    os.kill(pids[victim], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - killed < 20
    assert process.returncode == 1
    assert f"process {victim} was killed by SIGKILL" in errors.splitlines()[-1]
    found = json.loads((tmp_path / "run" / "status.json").read_text())
    assert found["status"] == "failed"
    assert f"process {victim} was killed by SIGKILL" in found["reason"]
    assert_gone(pids)
    if victim:
        return
    result = run(tmp_path, "train", "resume=run", "trainer.max_epochs=1", "trainer.devices=1")
    assert result.returncode == 0, result.stderr  # nothing left to train, and no lock in the way


@pytest.mark.slow
def test_a_failure_of_one_process_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RAISES_IN_THE_SECOND)
    words = ("train", *TWO, "plugins=[mine]", "decoder._target_=mine.Fragile", "hydra.run.dir=run")
    result = run(tmp_path, *words, PYTHONPATH=f"{environment()['PYTHONPATH']}:{tmp_path}")
    assert result.returncode == 1
    assert "process 1: ValueError: the second process broke" in result.stderr.splitlines()[-1]
    assert "the second process broke" in (tmp_path / "run" / "status.json").read_text()
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.slow
def test_torchrun_starts_the_processes(tmp_path: Path, alone: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "metvae_cli.cli"]
    words = ["train", *TWO, "trainer.max_epochs=2"]
    for more in ([], ["resume=RUN", "trainer.max_epochs=4"]):
        runs = sorted((tmp_path / "outputs" / "train").glob("*"))
        told = ["train", *(word.replace("RUN", str(runs[0])) for word in more)] if more else words
        result = subprocess.run(
            [*launcher, *told], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200
        )
        assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "outputs" / "train").iterdir()
    assert_same_curve(alone, folder)


@pytest.mark.slow
def test_slurm_starts_the_processes(tmp_path: Path, alone: Path) -> None:
    """What `srun --ntasks=2 metvae train ...` sets, by hand: no Slurm is at hand."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    tasks = []
    for rank in range(2):
        shared = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "metvae"}
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_STEP_ID": "0"}
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}
        tasks.append(
            subprocess.Popen(
                command("train", *TWO, "trainer.max_epochs=4"),
                cwd=tmp_path,
                env=environment() | shared | own | place,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [(task.communicate(timeout=200)[1], task.returncode) for task in tasks]
    assert [code for _, code in ended] == [0, 0], ended
    (folder,) = (tmp_path / "outputs" / "train").iterdir()
    assert_same_curve(alone, folder)


@pytest.mark.slow
def test_each_job_of_a_sweep_has_processes_of_its_own(tmp_path: Path, alone: Path) -> None:
    words = ("train", "-m", *TWO, "trainer.max_epochs=4", "seed=0,1", "hydra.sweep.dir=sweep")
    result = run(tmp_path, *words)
    assert result.returncode == 0, result.stderr
    jobs = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert [job.name for job in jobs] == ["00_seed=0", "01_seed=1"]
    assert_same_curve(alone, jobs[0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train", "trainer.devices=2", "trainer.num_nodes=2"), "trainer.num_nodes=2"),
        pytest.param(("train", "trainer.devices=0"), "trainer.devices=0: must be positive", marks=pytest.mark.slow),
        pytest.param(
            ("train", "trainer.strategy=fsdp"), "trainer.strategy=fsdp: expected one of ddp", marks=pytest.mark.slow
        ),
        pytest.param(
            ("train", "trainer.precision=bf16"),
            "trainer.precision=bf16: expected one of 32-true, bf16-mixed",
            marks=pytest.mark.slow,
        ),
        (("infer", "trainer.devices=2"), "trainer.devices=2: a density has no batch to share out"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    result = run(tmp_path, *words)
    assert result.returncode == 2
    assert result.stderr.startswith(f"metvae: error: {expected}")
    assert len(result.stderr.splitlines()) == 1
    assert files(tmp_path) == set()
