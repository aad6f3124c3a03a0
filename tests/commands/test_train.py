"""What `metvae train` leaves behind: one run, a resumed one, a sweep, and a sweep in which a job fails."""

import csv
import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metvae_cli.build import build_experiment
from metvae_cli.commands.train_run import train as train_in
from metvae_cli.models.priors import StandardNormal
from metvae_cli.training.checkpoint import load_checkpoint
from tests.runs import CHECKOUT, TINY, configuration, files, metvae, train

PARTS = {
    ".hydra",
    ".hydra/config.yaml",
    ".hydra/hydra.yaml",
    ".hydra/overrides.yaml",
    "checkpoints",
    "checkpoints/best.pt",
    "checkpoints/last.pt",
    "events",
    "manifest.json",
    "metrics.csv",
    "projector",
    "projector/metadata.tsv",
    "projector/sprite.png",
    "projector/tensors.tsv",
    "projector_config.pbtxt",
    "status.json",
    "summary.json",
    "train.log",
}
TERMS = ("bound", "reconstruction", "kl", "accept_1", "accept_2", "divergent_1", "effective_samples")


def parts(folder: Path) -> list[str]:
    """The names in a run's directory, with those of event files shortened."""
    return sorted(re.sub(r"^events\.out\.tfevents\..*", "events", name) for name in files(folder))


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def events(folder: Path) -> EventAccumulator:
    """All that TensorBoard shows of a run."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    here = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert train("seed=3", "trainer.log_every=10", "trainer.picture_every=1") == 0
    (folder,) = here.glob("outputs/train/*")
    assert len(files(here)) == len(files(folder)) + 3  # nothing beside the run
    return folder


def test_a_run_leaves_its_files_and_nothing_else(run: Path) -> None:
    assert parts(run) == sorted(PARTS)
    assert read(run, "status.json")["status"] == "finished"
    assert "epoch 2" in (run / "train.log").read_text()


def test_the_summary_says_how_good_the_model_is(run: Path) -> None:
    summary = read(run, "summary.json")
    keys = "train/bound val/bound test/nll test/nll_se seconds decoder_evaluations"
    assert all(math.isfinite(summary[key]) for key in keys.split())
    assert summary["val/bound"] == max(float(row["val/bound"]) for row in rows(run))
    assert summary["train/bound"] == float(rows(run)[-1]["train/bound"])
    assert (summary["test/data"], summary["test/samples"], summary["stopped"]) == (20, 5, "max_epochs")
    assert summary["decoder_evaluations"] == 2 * 1297 * 3


def test_metrics_have_a_row_per_epoch(run: Path) -> None:
    assert [row["epoch"] for row in rows(run)] == ["1.0", "2.0"]
    assert rows(run)[0].keys() >= {f"{split}/{term}" for split in ("train", "val") for term in TERMS}


def test_the_manifest_says_what_ran(run: Path) -> None:
    manifest = read(run, "manifest.json")
    (start,) = manifest["starts"]
    assert (manifest["seed"], manifest["device"]) == (3, "cpu")
    assert manifest["config"]["sampler"]["num_steps"] == 2
    assert "seed=3" in start["argv"]
    assert start["time"] < manifest["end"]
    assert manifest["versions"].keys() >= {"metvae", "python", "torch", "hydra-core", "numpy"}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True)
    if commit.returncode == 0:
        assert manifest["git"]["commit"] == commit.stdout.strip()
        assert isinstance(manifest["git"]["dirty"], bool)


def test_tensorboard_shows_scalars_images_text_and_hyperparameters(run: Path) -> None:
    board = events(run)
    tags = board.Tags()
    assert {f"{split}/{term}" for split in ("train", "val") for term in TERMS} <= set(tags["scalars"])
    assert {"final/val/bound", "final/test/nll", "step_size/2"} <= set(tags["scalars"])
    assert [event.step for event in board.Scalars("train/bound")] == [10, 20, 30, 40]
    assert [event.step for event in board.Scalars("val/bound")] == [21, 42]
    recorded = [float(row["val/bound"]) for row in rows(run)]
    assert [event.value for event in board.Scalars("val/bound")] == pytest.approx(recorded)
    pictures = {"images/prior_samples", "images/reconstructions", "images/chain", "latent/encoder_means"}
    assert set(tags["images"]) == pictures | {f"final/{name}" for name in pictures}
    assert [event.step for event in board.Images("images/chain")] == [21, 42]
    assert {"config/text_summary", "command/text_summary"} <= set(tags["tensors"])
    metadata = board.summary_metadata
    assert {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(metadata)
    assert "val/log_weights" in tags["histograms"]


def test_a_resumed_run_goes_on_in_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("hydra.run.dir=run", "trainer.log_every=10", "trainer.picture_every=1") == 0
    first = read(tmp_path / "run", "manifest.json")["starts"]
    assert metvae("train", "resume=run", "trainer.max_epochs=3") == 0
    folder = tmp_path / "run"
    assert set(parts(folder)) == PARTS
    assert files(tmp_path) == {"run", *(f"run/{name}" for name in files(folder))}
    assert [row["epoch"] for row in rows(folder)] == ["1.0", "2.0", "3.0"]
    manifest = read(folder, "manifest.json")
    assert manifest["starts"][:1] == first
    assert len(manifest["starts"]) == 2
    assert read(folder, "status.json")["status"] == "finished"
    assert read(folder, "summary.json")["epochs"] == 3
    assert "epoch 1" in (log := (folder / "train.log").read_text())
    assert "epoch 3" in log
    board = events(folder)
    for tag in board.Tags()["scalars"]:
        steps = [event.step for event in board.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
    assert [event.step for event in board.Scalars("val/bound")] == [21, 42, 63]
    assert [event.step for event in board.Images("images/chain")] == [21, 42, 63]


def test_a_sweep_leaves_a_run_for_each_combination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("-m", "seed=0,1", "sampler=random_walk,hmc", "trainer.max_epochs=1") == 0
    (sweep,) = tmp_path.glob("outputs/train/*")
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir())
    names = [
        "00_seed=0,sampler=random_walk",
        "01_seed=0,sampler=hmc",
        "02_seed=1,sampler=random_walk",
        "03_seed=1,sampler=hmc",
    ]
    assert [job.name for job in jobs] == names
    assert {path.name for path in sweep.iterdir()} == {*names, "multirun.yaml", "sweep.json"}
    found = set()
    for job in jobs:
        assert parts(job) == sorted(PARTS)
        assert read(job, "status.json")["status"] == "finished"
        config = read(job, "manifest.json")["config"]
        found.add((config["seed"], config["sampler"]["_target_"].rpartition(".")[2]))
        assert load_checkpoint(job / "checkpoints" / "last.pt")["state"]["epoch"] == 1
    assert found == {(0, "RandomWalk"), (0, "Hamiltonian"), (1, "RandomWalk"), (1, "Hamiltonian")}


def test_jobs_of_a_sweep_that_fail_stop_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("optimizer=sgd", "trainer.clip_norm=null", "trainer.max_bad_steps=2", "trainer.max_epochs=1")
    # Batches of one: an exception that left a job would keep Hydra from starting the next batch.
    assert train("-m", *words, "optimizer.lr=1e30,-1,1e-3", "hydra.sweeper.max_batch_size=1") == 1
    (sweep,) = tmp_path.glob("outputs/train/*")
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir())
    status = [read(job, "status.json") for job in jobs]
    assert [entry["status"] for entry in status] == ["failed", "failed", "finished"]
    assert "not finite" in status[0]["reason"]
    log = (jobs[0] / "train.log").read_text()
    assert "Traceback" in log
    assert "2 consecutive steps" in log
    assert status[1]["reason"].startswith("optimizer.lr=-1")
    assert "optimizer.lr=-1" in (jobs[1] / "train.log").read_text()
    assert "failed" not in (jobs[2] / "train.log").read_text()
    printed = capsys.readouterr()
    failures = [line for line in printed.err.splitlines() if "failed" in line]
    assert [line.partition(" ")[0] for line in failures] == [job.name for job in jobs[:2]]
    assert "Traceback" not in printed.err
    table = printed.out[printed.out.index("sweep: 2 failed, 1 finished") :]
    assert "2 consecutive steps" in " ".join(table.split())
    assert "optimizer.lr=-1: must be" in " ".join(table.split())
    assert f"{status[2]['value']:.3f}" in table
    assert f"sweep.resume={sweep.relative_to(tmp_path)}" in table.splitlines()[-1]


@pytest.mark.parametrize(
    "words", [("hydra.run.dir=run",), ("-m", "seed=0", "hydra.sweep.dir=.", "hydra.sweep.subdir=run")]
)
def test_a_defect_in_a_component_is_told_in_the_runs_own_log(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def defect(*arguments: object, **named: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StandardNormal, "__init__", defect)
    assert train(*words) == 1
    printed = capsys.readouterr()
    assert [line for line in printed.err.splitlines() if "ZeroDivisionError: a defect" in line][1:] == []
    assert "ZeroDivisionError: a defect" in printed.err.splitlines()[-1]
    assert read(tmp_path / "run", "status.json")["status"] == "failed"
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.parametrize("way", ["word", "interpolation", "sweep"])
def test_an_earlier_run_is_refused_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = {
        "word": ("hydra.run.dir=run7",),
        "interpolation": ("hydra.run.dir=run${seed}", "seed=7"),
        "sweep": ("-m", "hydra.sweep.dir=sweep", "seed=1"),
    }[way]
    assert train(*words) == 0
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()}
    capsys.readouterr()
    assert train(*words, "optimizer.lr=0.5") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "holds a run already" in message
    assert "resume=" in message
    after = {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()}
    if way == "sweep":
        assert message.startswith("metvae: error: hydra.sweep.dir=sweep: ")
    assert after == before


def test_the_best_bound_is_given_to_a_sweeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = configuration(*TINY)
    value = train_in(build_experiment(config, []), config, tmp_path / "run")
    assert value == read(tmp_path / "run", "summary.json")["val/bound"]
