"""What is found on disk: finished, failed, unfinished, damaged and never started; evaluations; how fast."""

import os
import socket
import time
from pathlib import Path

import pytest

from metvae_cli.comparison.runs import Evaluation, Run, find, with_evaluations
from metvae_cli.errors import ConfigError
from tests.comparison.written import write, write_run, write_sweep_file


def only(folder: Path) -> Run:
    runs, _ = find([folder])
    assert len(runs) == 1
    return runs[0]


def test_a_finished_run_is_read_whole(tmp_path: Path) -> None:
    words = ["sampler=hmc", "+sampler.num_steps=3", "'encoder.hidden=[1, 2]'"]
    write_run(tmp_path / "run", 4, typed=words, metrics={"test/nll": 31.5, "odd": True})
    run = only(tmp_path)
    assert (run.state, run.seed, run.data) == ("finished", 4, "f")
    assert run.settings["sampler.step_size.initial"] == "0.1"
    assert run.settings["plugins"] == "[]"
    assert run.settings["resume"] == "null"
    assert run.choices == {"dataset": "digits", "likelihood": "bernoulli", "sampler": "hmc", "objective": "metvae"}
    assert run.typed == {"sampler", "sampler.num_steps", "encoder.hidden"}
    assert run.metrics["test/log_likelihood"] == -31.5
    assert "stopped" not in run.metrics
    assert "odd" not in run.metrics


def test_a_run_named_twice_is_one(tmp_path: Path) -> None:
    write_run(tmp_path / "sweep" / "0")
    (tmp_path / "link").symlink_to(tmp_path / "sweep" / "0")
    runs, _ = find([tmp_path, tmp_path / "sweep", tmp_path / "sweep" / "0", tmp_path / "link"])
    assert len(runs) == 1


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_what_did_not_finish_has_its_reason_and_no_numbers(tmp_path: Path, status: str) -> None:
    write_run(tmp_path, status=status, reason="the loss\nis not finite")
    write(tmp_path / "summary.json", {"val/bound": -1.0})  # of before a resume
    run = only(tmp_path)
    assert (run.state, run.reason, run.metrics) == (status, "the loss is not finite", {})
    assert run.configured


def test_running_and_killed_are_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", status="running")
    write_run(tmp_path / "b", status="running")
    write_run(tmp_path / "c", status="running")
    (tmp_path / "a" / ".lock").write_text(f"{socket.gethostname()} {os.getppid()}")
    (tmp_path / "c" / ".lock").write_text("elsewhere 1")
    runs, _ = find([tmp_path])
    assert [run.state for run in runs] == ["running", "killed", "running"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("manifest.json", "{", "manifest.json cannot be read"),
        ("summary.json", "[1]", "summary.json holds no JSON object"),
        ("summary.json", None, "summary.json is missing"),
        ("status.json", "\x00", "status.json cannot be read"),
    ],
)
def test_damage_is_noted_and_not_fatal(tmp_path: Path, name: str, text: str | None, reason: str) -> None:
    write_run(tmp_path / "good")
    write_run(tmp_path / "worse")
    (tmp_path / "worse" / name).unlink()
    if text is not None:
        (tmp_path / "worse" / name).write_text(text)
    runs, _ = find([tmp_path])
    assert [run.state for run in runs] == ["finished", "damaged"]
    assert reason in runs[1].reason
    assert runs[1].metrics == {}


@pytest.mark.parametrize("names", [("0", "1", "2", "3"), ("00_a=1", "01_b=2,c=3", "02_x", "03_y")])
def test_jobs_of_a_sweep_that_wrote_no_configuration_or_never_began_are_named_by_their_words(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    write_sweep_file(tmp_path, ["sampler=none,hmc", "encoder.hidden=[1,2],[3]", "latent_dim=2"])
    write(tmp_path / names[1] / "status.json", {"status": "failed", "reason": "no such thing"})
    for job in (0, 2):
        write_run(tmp_path / names[job])
    runs, _ = find([tmp_path])
    found = {run.folder.name: (run.state, run.reason) for run in runs}
    assert len(runs) == 4
    assert found[names[1]] == ("failed", "sampler=none encoder.hidden=[3]: no such thing")
    assert found["3"] == ("not started", "sampler=hmc encoder.hidden=[3]")
    assert found[names[0]] == found[names[2]] == ("finished", "")


def test_methods_side_by_side_are_runs_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", {"seed": 0, "config": {"methods": ["infer_walk", "infer_hmc"], "seed": 0}})
    write(tmp_path / "status.json", {"status": "finished"})
    for name in ("infer_walk", "infer_hmc"):
        write_run(tmp_path / name, metrics={"bound": -1.0})
        (tmp_path / name / ".hydra" / "hydra.yaml").unlink()
    runs, _ = find([tmp_path])
    assert [run.choices for run in runs] == [{"experiment": "infer_hmc"}, {"experiment": "infer_walk"}]


def write_start(folder: Path, run: str, *times: str) -> None:
    """Manifest and status of an evaluation that was started at these times from two folders above its own."""
    starts = [{"time": time} for time in times]
    place = str(folder.parents[1])
    write(folder / "manifest.json", {"directory": place, "config": {"run": run}, "starts": starts})
    write(folder / "status.json", {"status": "finished", "time": "2027-01-01"})


def test_evaluations_join_the_run_that_they_name_and_the_latest_counts(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "0")
    for name, nats, day, run in (("a", -9.0, 2, "runs/0"), ("b", -8.0, 1, "runs/0"), ("c", -7.0, 1, "gone")):
        folder = tmp_path / "evaluations" / name
        results = {"importance": {"nats": nats, "proposal": "encoder"}}
        write(folder / "evaluation.json", {"run": run, "estimators": results})
        write_start(folder, run, f"2026-01-1{day}")
    runs, evaluations = find([tmp_path])
    assert len(evaluations) == 3
    assert all(isinstance(evaluation, Evaluation) for evaluation in evaluations)
    joined, lost, old = with_evaluations(runs, evaluations)
    assert (lost, old) == (1, 0)
    assert [run.metrics["importance/nats"] for run in joined] == [-9.0]
    assert joined[0].metrics["val/bound"] == -30.0


def test_evaluations_of_other_data_and_checkpoints_have_names_of_their_own_and_the_most_data_count(
    tmp_path: Path,
) -> None:
    write_run(tmp_path / "run")
    kinds = [
        (-9.0, "test", "best", 100),
        (-8.0, "test", "best", 10),
        (-7.0, "train", "best", 100),
        (-6.0, "test", "last", 100),
        (-5.0, "valid", "last", 100),
    ]
    for day, (nats, split, checkpoint, count) in enumerate(kinds, 1):
        folder = tmp_path / "evaluations" / str(day)
        of = {"split": split, "count": count}
        results = {"importance": {"nats": nats}}
        write(folder / "evaluation.json", {"run": "run", "checkpoint": checkpoint, "data": of, "estimators": results})
        write_start(folder, "run", f"2026-01-1{day}")
    found = with_evaluations(*find([tmp_path]))[0][0].metrics
    assert {name: value for name, value in found.items() if name.endswith("/nats")} == {
        "importance/nats": -9.0,
        "train/importance/nats": -7.0,
        "last/importance/nats": -6.0,
        "valid/last/importance/nats": -5.0,
    }


def test_evaluations_that_began_before_a_run_was_gone_on_with_do_not_count(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    times = {"old": ["2025-12-30", "2025-12-31"], "again": ["2025-12-31", "2026-01-02"], "unknown": []}
    for (name, starts), count in zip(times.items(), (2000, 500, 2000), strict=True):
        content = {"run": "run", "data": {"count": count}, "estimators": {"importance": {"nats": -float(count)}}}
        write(tmp_path / "evaluations" / name / "evaluation.json", content)
        write_start(tmp_path / "evaluations" / name, "run", *starts)
    joined, lost, old = with_evaluations(*find([tmp_path]))
    assert [run.metrics["importance/nats"] for run in joined] == [-500.0]
    assert (lost, old) == (0, 2)


@pytest.mark.parametrize("status", ["finished", "failed", "interrupted"])
def test_pictures_of_a_run_are_no_run(tmp_path: Path, status: str) -> None:
    write(tmp_path / "status.json", {"status": status})
    (tmp_path / "sample.log").touch()
    assert find([tmp_path]) == ([], [])


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such directory"):
        find([tmp_path / "nothing"])


def test_two_thousand_runs_are_read_in_seconds(tmp_path: Path) -> None:
    for number in range(2000):
        write_run(tmp_path / str(number % 40) / str(number), number % 10, curve=[-1.0] * 20)
        (tmp_path / str(number % 40) / str(number) / "checkpoints").mkdir()
    start = time.process_time()
    runs, _ = find([tmp_path])
    assert time.process_time() - start < 5
    assert len(runs) == 2000
