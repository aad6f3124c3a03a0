"""What a run costs as it grows: bytes exchanged per iteration, memory held per step of the chain, several processes.

python -m benchmarks.scaling            tables for docs/scaling.md, about five minutes on two cores

Pixels are drawn at random: neither costs nor sizes depend on them.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from benchmarks.measuring import SavedBytes
from metvae_cli.build import Experiment, build_experiment
from metvae_cli.paths import config_dir
from metvae_cli.plain_config import plain

BASE = (
    "dataset=array",
    "dataset.binarization=dynamic",
    "dataset.batch_size=100",
    "trainer.device=cpu",
    "latent_dim=64",
)
NETWORKS = {
    "mlp400": ("encoder=mlp400", "decoder=mlp400"),
    "conv": ("encoder=conv", "decoder=conv"),
}
CHAIN = ("sampler=langevin", "objective=metvae", "objective.num_samples=1", "objective.baseline=running")


def write_pixels(folder: Path, count: int = 4000) -> Path:
    """Grey images of MNIST's size."""
    path = folder / "pixels.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), dtype=np.uint8))
    return path


def experiment(words: Sequence[str]) -> Experiment:
    """What the words describe."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return build_experiment(plain(compose("train", overrides=list(words))), [])


def held(words: Sequence[str]) -> tuple[int, int, int]:
    """Parameters, bytes exchanged per iteration, and bytes that autograd holds at the end of the forward pass."""
    learner = experiment(words).learner
    x = learner.dataset.batch(torch.arange(learner.batch_size))
    saved = SavedBytes(learner.model.parameters())
    with saved.watching():
        output = learner.objective(learner.model, learner.sampler, x)
    parameters = sum(p.numel() for p in [*learner.model.parameters(), *learner.sampler.parameters()])
    outcome = output.outcome
    exchanged = 4 * (
        parameters + outcome.metropolis_prob.numel() + outcome.z.numel() + 3 * learner.sampler.num_steps + 8
    )
    return parameters, exchanged, saved.present


def table_of_sizes(pixels: Path) -> None:
    """How parameters, exchange and memory grow with networks, D, S and K."""
    print("networks    D   S   K   parameters   exchanged MB   held MB")
    sizes = [(64, 1, 0), (64, 1, 1), (64, 1, 5), (64, 1, 10), (64, 4, 5), (16, 1, 5), (256, 1, 5)]
    for name, networks in NETWORKS.items():
        for latent, samples, steps in sizes:
            chain = (*CHAIN, f"sampler.num_steps={steps}") if steps else ("sampler=none", "objective=elbo")
            more = (f"objective.num_samples={samples}",) if steps else ()
            words = [*BASE, f"dataset.path={pixels}", *networks, *chain, *more, f"latent_dim={latent}"]
            parameters, exchanged, memory = held(words)
            sizes_in_mb = f"{exchanged / 1e6:14.2f} {memory / 1e6:9.1f}"
            print(f"{name:8} {latent:4} {samples:3} {steps:3} {parameters:12,} {sizes_in_mb}")


def milliseconds(words: Sequence[str], folder: Path) -> float:
    """Per iteration of training, validations left out as far as they can be, from summary.json."""
    command = [sys.executable, "-m", "metvae_cli.cli", "train", *words, f"hydra.run.dir={folder}"]
    subprocess.run(command, check=True, capture_output=True)
    summary = json.loads((folder / "summary.json").read_text())
    return 1000 * summary["seconds"] / summary["iterations"]


def table_of_processes(pixels: Path, here: Path, repeats: int = 3) -> None:
    """One process of one and of two threads against two of one."""
    ways = {
        "1 x 1 thread": ("trainer.threads=1",),
        "1 x 2 threads": ("trainer.threads=2",),
        "2 x 1 thread": ("trainer.threads=1", "trainer.devices=2"),
    }
    short = ("trainer.max_epochs=50", "trainer.test_samples=2", "trainer.test_data=10", "trainer.validate_every=50")
    print(f"milliseconds per iteration, median of {repeats} runs")
    print("networks  batch " + " ".join(f"{way:>14}" for way in ways))
    for name, batch, iterations in (("mlp400", 100, 60), ("mlp400", 400, 30), ("conv", 100, 8)):
        found: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(repeats):
            for way, more in ways.items():
                words = [*BASE, f"dataset.path={pixels}", *NETWORKS[name], *CHAIN, "sampler.num_steps=5", *short, *more]
                words += [f"dataset.batch_size={batch}", f"trainer.max_iterations={iterations}"]
                folder = here / f"{name} {batch} {repeat} {way}".replace(" ", "_")
                found[way].append(milliseconds([*words, "dataset.num_valid=10"], folder))
        print(f"{name:8} {batch:6} " + " ".join(f"{statistics.median(times):14.1f}" for times in found.values()))


if __name__ == "__main__":
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        path = write_pixels(place)
        table_of_sizes(path)
        table_of_processes(path, place)
    print(f"{time.monotonic() - begin:.0f} seconds")
