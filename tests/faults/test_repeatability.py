"""The same words, the same bits: weights, optimizer, random streams, metrics.csv and summary of two runs.

Seconds are left out, and nothing else. Whatever else happens to the process between the runs must not matter.
"""

import csv
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metvae_cli import build
from metvae_cli.data import image_files
from metvae_cli.data.folder import FolderData
from metvae_cli.paths import config_dir
from metvae_cli.training.checkpoint import load_checkpoint
from metvae_cli.training.trainer import Trainer
from tests.faults.methods import METHODS, SMALL, make, some
from tests.runs import BRIEF, command, environment, metvae
from tests.training.training import differences, whole

EXPERIMENTS = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))
QUICK = ("digits_metvae_flow", "infer_ring_lmcvae", "mnist_vcd")
# Those of MNIST on images of the test's own making.
IMAGES = (
    *("dataset=array", "dataset.values=levels", "dataset.binarization=dynamic", "dataset.num_valid=20"),
    *("dataset.num_test=20", "dataset.batch_size=64", "encoder.channels=[2,4]", "decoder.channels=[4,2]"),
    *("latent_dim=4", "trainer.device=cpu", "trainer.max_epochs=2", "trainer.test_samples=5", "trainer.test_data=5"),
)
PARTS = ("model", "sampler", "optimizer", "scheduler", "adaptations", "random")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(experiment: str, place: Path) -> list[str]:
    """The command that runs an experiment for a moment. place: where its data may be written."""
    if experiment.startswith("infer"):
        return ["infer", *BRIEF, f"experiment={experiment}"]
    if experiment.startswith("digits"):
        return ["train", *SMALL, f"experiment={experiment}"]
    path = place / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8))
    return ["train", f"experiment={experiment}", *IMAGES, f"dataset.path={path}"]


def disturb() -> None:
    """Leave the process's random streams anywhere."""
    random.seed(os.urandom(8))
    np.random.seed(int.from_bytes(os.urandom(4)))
    torch.manual_seed(int.from_bytes(os.urandom(4)))
    torch.randn(7)


def untimed(path: Path) -> Any:
    """What a file of numbers holds, without seconds."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return without_seconds(json.loads(path.read_text()))


def without_seconds(value: Any) -> Any:
    """Of several methods, those of each are below."""
    if isinstance(value, dict):
        return {name: without_seconds(entry) for name, entry in value.items() if "second" not in name}
    return value


def found(folder: Path) -> dict[str, Any]:
    """All that must be the same of a run, or of those below it, by the name of a file."""
    numbers = {path: untimed(path) for name in ("metrics.csv", "summary.json") for path in folder.rglob(name)}
    arrays = {path: path.read_bytes() for path in folder.rglob("*.npy")}
    saved = {path: load_checkpoint(path) for path in folder.rglob("*.pt")}
    kept = {path: {part: content[part] for part in PARTS} for path, content in saved.items()}
    return {str(path.relative_to(folder)): value for path, value in {**numbers, **arrays, **kept}.items()}


def apart(one: Path, other: Path) -> list[str]:
    """Names of what is not the same, bit by bit."""
    first, second = found(one), found(other)
    assert first
    if first.keys() != second.keys():
        return sorted(first.keys() ^ second.keys())
    # As text, in which NaN is NaN; numbers in it are exact.
    texts = {name for name, value in first.items() if not isinstance(value, dict) or name.endswith(".json")}
    return [name for name in texts if str(first[name]) != str(second[name])] + [
        line for name in first.keys() - texts for line in differences(first[name], second[name], name)
    ]


def threads_of(folder: Path) -> int:
    """With which it ran: bits are promised for the same number."""
    return json.loads((folder / "manifest.json").read_text())["starts"][-1]["threads"]


def run(folder: str, *words: str) -> Path:
    """A run in this process, whose random streams may stand anywhere."""
    disturb()
    assert metvae(*words, f"hydra.run.dir={folder}") == 0
    return Path(folder)


@pytest.mark.parametrize("experiment", some(EXPERIMENTS, QUICK))
def test_an_experiment_repeats_bitwise(experiment: str, here: Path) -> None:
    words = words_of(experiment, here)
    assert apart(run("a", *words), run("b", *words)) == []
    if experiment == QUICK[0]:
        assert apart(Path("a"), run("c", *words, "seed=1")) != []


def test_a_run_that_does_not_set_its_streams_is_found_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "seed_everything", lambda seed: None)
    words = words_of("digits_vae", here)
    different = apart(run("a", *words), run("b", *words))
    assert {"metrics.csv", "summary.json"} <= set(different)
    assert any("model" in name for name in different)


def test_noise_that_is_not_of_the_runs_own_streams_is_found_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def noisy(self: Trainer, batch: Any) -> None:
        step(self, batch)
        self.parameters[0].data[0, 0] += 1e-6 * int.from_bytes(os.urandom(1))

    monkeypatch.setattr(Trainer, "step", noisy)
    words = words_of("digits_lmcvae", here)
    assert apart(run("a", *words), run("b", *words)) != []


ELSEWHERE = {
    "digits_amcvae": {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "2"},
    "digits_vcd": {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "2"},
    "infer_ring_lmcvae": {"PYTHONHASHSEED": "1"},
    "infer_metflow": {"PYTHONHASHSEED": "77", "LC_ALL": "C", "TZ": "Asia/Tokyo"},
    "mnist_metvae_hmc": {"PYTHONHASHSEED": "2"},
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ELSEWHERE)
def test_another_process_in_another_place_has_the_same_bits(experiment: str, here: Path) -> None:
    """Other hashes and another working directory; a small model has one thread, however many torch would take."""
    words = words_of(experiment, here)
    place = here / "other place"
    place.mkdir()
    other = environment() | ELSEWHERE[experiment]
    started = command(*words, "hydra.run.dir=there")
    result = subprocess.run(started, cwd=place, env=other, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert apart(run("a", *words), place / "there") == []
    assert [threads_of(path) for path in (Path("a"), place / "there")] == [1, 1]


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core")
@pytest.mark.parametrize("experiment", ["digits_lmcvae", "mnist_vae", "mnist_lmcvae"])
def test_several_threads_repeat_bitwise(experiment: str, here: Path) -> None:
    """Networks as they are shipped, some of which are large enough to be shared out."""
    small = [word for word in words_of(experiment, here) if not word.startswith(("encoder", "decoder", "latent"))]
    words = (*small, "trainer.threads=2", "trainer.max_iterations=3")
    assert apart(run("a", *words), run("b", *words)) == []
    assert threads_of(Path("a")) == 2


CHAINS = ("amcvae", "flow", "hvae", "lmcvae", "metvae_flow", "metvae_hmc", "uha")


@pytest.mark.parametrize("name", some(CHAINS, ("metvae_hmc",)))
def test_a_chain_that_is_computed_again_trains_to_the_same_bits(name: str, tmp_path: Path) -> None:
    kept, again = (
        make(tmp_path / chosen, *METHODS[name], f"trainer.checkpoint_chain={chosen}") for chosen in ("false", "true")
    )
    for trainer in (kept, again):
        torch.manual_seed(5)
        trainer.fit()
    assert again.learner.sampler.checkpoints
    assert differences(whole(kept), whole(again)) == []


@pytest.mark.slow
def test_a_job_of_a_sweep_is_the_run_of_its_words(here: Path) -> None:
    words = words_of("digits_metvae_hmc", here)
    assert metvae(*words, "-m", "seed=0,1", "optimizer.lr=1e-3,1e-2", "hydra.sweep.dir=all") == 0
    jobs = sorted(path.parent for path in here.glob("all/*/status.json"))
    assert len(jobs) == 4
    assert apart(jobs[3], run("alone", *words, "seed=1", "optimizer.lr=1e-2")) == []
    assert apart(jobs[2], Path("alone")) != []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local_jobs", "local_processes"])
def test_launchers_do_not_matter(launcher: str, here: Path) -> None:
    words = (*words_of("digits_uha", here), "-m", "seed=0,1")
    assert metvae(*words, "hydra.sweep.dir=basic") == 0
    started = command(*words, f"hydra/launcher={launcher}", "hydra.sweep.dir=other")
    result = subprocess.run(started, cwd=here, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for job in sorted(path.parent.name for path in here.glob("basic/*/status.json")):
        assert apart(here / "basic" / job, here / "other" / job) == []


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is another device here")
def test_the_automatic_device_is_the_cpu_where_there_is_no_other(here: Path) -> None:
    words = words_of("digits_vae", here)
    assert apart(run("cpu", *words), run("auto", *words, "trainer.device=auto")) == []


@pytest.mark.slow
@pytest.mark.parametrize("option", ["trainer.replicas=2", "trainer.precision=bf16-mixed"])
def test_other_ways_to_train_repeat_bitwise(option: str, here: Path) -> None:
    words = (*words_of("digits_lmcvae", here), option)
    assert apart(run("a", *words), run("b", *words)) == []


@pytest.mark.slow
def test_two_processes_that_train_together_repeat_bitwise(here: Path) -> None:
    words = (*words_of("digits_lmcvae", here), "trainer.devices=2")
    for folder in ("a", "b"):
        started = command(*words, f"hydra.run.dir={folder}")
        result = subprocess.run(started, cwd=here, env=environment(), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    assert apart(here / "a", here / "b") == []


MEASURED = {
    "evaluate": (
        *("importance.num_samples=20", "importance.repeats=2", "ais.num_temperatures=5", "ais.num_chains=2"),
        *("ais.data=4", "estimators=[importance,ais]", "diagnostics=[]"),
    ),
    "sample": ("seed=3", "pictures=[prior,reconstructions,chain,inpainting]"),
}


@pytest.mark.slow
def test_what_is_measured_and_drawn_of_a_run_is_the_same_in_another_process(here: Path) -> None:
    trained = run("run", *words_of("digits_metvae_hmc", here))
    for name, words in MEASURED.items():
        assert metvae(name, f"run={trained}", *words, f"hydra.run.dir={name}_a") == 0
        started = command(name, f"run={here / trained}", *words, f"hydra.run.dir={here / name}_b")
        hashes = environment() | {"PYTHONHASHSEED": "4"}
        result = subprocess.run(started, cwd=here.parent, env=hashes, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        one, other = (
            {path.name: path.read_bytes() for path in here.glob(f"{name}_{which}/*") if path.suffix in (".png", ".csv")}
            for which in "ab"
        )
        assert one
        assert one == other


def loaded(folder: Path, workers: int) -> str:
    source = FolderData(str(folder), num_valid=2, num_test=2, workers=workers, cache_mb=0)
    dataset = source.load()
    return dataset.fingerprint() + str(dataset.batch(torch.arange(len(dataset.train))).sum((1, 2, 3)).tolist())


def test_neither_workers_nor_the_order_of_a_folders_files_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operating system gives names in any order."""
    for number in range(12):
        place = tmp_path / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (5, 4), dtype=np.uint8)
        image_files.Image.fromarray(pixels).save(place / f"{number}.png")
    expected, walk = loaded(tmp_path, 1), os.walk
    assert loaded(tmp_path, 4) == expected

    def backwards(*arguments: Any, **options: Any) -> Any:
        for place, folders, files in walk(*arguments, **options):
            folders.sort(reverse=True)
            yield place, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert loaded(tmp_path, 1) == expected
    monkeypatch.setattr(image_files, "sorted", list, raising=False)
    assert loaded(tmp_path, 1) != expected
