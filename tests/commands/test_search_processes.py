"""Searches in processes of their own: side by side, killed, and told to stop."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.endings import assert_same_end, jobs_of, status, wait_for_epoch
from tests.runs import command, environment, start
from tests.searches import LR, PRUNED, SEARCH, SMALL, check_pruned, trials, tried, value

LONGER = (*SMALL, SEARCH, LR, "latent_dim=range(1,4)", "trainer.max_epochs=8", "trainer.checkpoint_seconds=0.05")


@pytest.mark.slow
def test_trials_side_by_side_are_pruned_too(tmp_path: Path) -> None:
    words = (*SMALL, SEARCH, *PRUNED, "hydra.sweeper.n_trials=6", "hydra/launcher=local_jobs", "hydra.sweep.dir=sweep")
    everything = command("train", "-m", *words, "hydra.launcher.n_jobs=2")
    result = subprocess.run(everything, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    sweep = tmp_path / "sweep"
    assert [trial.number for trial in trials(sweep)] == list(range(6))
    assert {trial.state.name for trial in trials(sweep)} == {"COMPLETE", "PRUNED"}
    assert "epoch 1" not in result.stderr.replace("pruned after epoch 1", "")
    check_pruned(sweep)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_that_was_killed_and_made_wider_ends_where_a_quiet_one_does(tmp_path: Path) -> None:
    """One trial at a time: what is proposed depends on the seed, the number and the trials before; all of it survives.

    Of trials side by side that cannot be promised: a killed start leaves batches other than those of a quiet one.
    """
    pruner = ("hydra.sweeper.pruner=median", "hydra.sweeper.n_startup_trials=5", "hydra.sweeper.prune_after=2")
    quiet = command("train", "-m", *LONGER, *pruner, "hydra.sweeper.n_trials=16", "hydra.sweep.dir=quiet")
    subprocess.run(quiet, cwd=tmp_path, env=environment(), capture_output=True, check=True)
    sweep = tmp_path / "sweep"
    process = start(tmp_path, "train", "-m", *LONGER, *pruner, "hydra.sweeper.n_trials=10", "hydra.sweep.dir=sweep")
    fifth = jobs_of(tmp_path / "quiet")[4].name
    wait_for_epoch(sweep / fifth, 2)
    process.kill()
    process.communicate()
    assert status(sweep / fifth) == "running"
    for wider in ((), ("hydra.sweeper.n_trials=16",)):
        again = command("train", "-m", "sweep.resume=sweep", *wider)
        subprocess.run(again, cwd=tmp_path, env=environment(), capture_output=True, check=True)
    assert tried(sweep) == tried(tmp_path / "quiet")
    assert {"COMPLETE", "PRUNED"} == {trial.state.name for trial in trials(sweep)}
    assert [trial.intermediate_values for trial in trials(sweep)] == [
        trial.intermediate_values for trial in trials(tmp_path / "quiet")
    ]
    for job, straight in zip(jobs_of(sweep), jobs_of(tmp_path / "quiet"), strict=True):
        assert job.name == straight.name
        if status(straight) == "finished":
            assert_same_end(job, straight)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", ["basic", "local_jobs", "local_processes"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_trial_is_lost_or_doubled_by_a_signal(tmp_path: Path, launcher: str, number: signal.Signals) -> None:
    """Side by side a killed sweep may leave jobs running, which end or are found gone by the next start."""
    words = (*LONGER, f"hydra/launcher={launcher}", "hydra.sweeper.n_trials=6", "hydra.sweep.dir=sweep")
    batch = () if launcher == "basic" else ("hydra.sweeper.max_batch_size=2",)
    process = start(tmp_path, "train", "-m", *words, *batch)
    sweep = tmp_path / "sweep"
    while len(jobs_of(sweep) if sweep.exists() else []) < 3:
        assert process.poll() is None, process.communicate()
    wait_for_epoch(jobs_of(sweep)[2], 1)
    process.send_signal(number)
    # Not communicate(): joblib's processes keep the pipes open for minutes after the death of their parent.
    assert process.wait(timeout=120) == (-9 if number == signal.SIGKILL else 128 + number)
    for _ in range(20):
        again = command("train", "-m", f"hydra/launcher={launcher}", *batch, "sweep.resume=sweep")
        result = subprocess.run(again, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        if result.returncode == 0:
            break
        assert "is left to another process" in result.stderr
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()
    assert [trial.number for trial in trials(sweep)] == list(range(6))
    assert {trial.state.name for trial in trials(sweep)} == {"COMPLETE"}
    assert [int(job.name[:2]) for job in jobs_of(sweep)] == list(range(6))
    assert [value(job) for job in jobs_of(sweep)] == [trial.value for trial in trials(sweep)]
