"""Every shipped family of methods, small: the words that choose it, a trainer of it, and what spoils it."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metvae_cli.build import build_experiment
from metvae_cli.data.base import Dataset
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.trainer import Trainer
from tests.runs import configuration, metvae
from tests.training.training import Notes

METHODS = {
    "vae": ("experiment=digits_vae",),
    "iwae": ("experiment=digits_iwae",),
    "renyi": ("experiment=digits_renyi",),
    "cubo": ("sampler=none", "objective=cubo"),
    "metvae_hmc": ("experiment=digits_metvae_hmc",),
    "metvae_flow": ("experiment=digits_metvae_flow",),
    "metvae_stopped": ("experiment=digits_metvae_stopped",),
    "lmcvae": ("experiment=digits_lmcvae",),
    "amcvae": ("experiment=digits_amcvae",),
    "uha": ("experiment=digits_uha",),
    "hvae": ("experiment=digits_hvae",),
    "flow": ("sampler=flow", "sampler.direction=forwards", "sampler.acceptance=none", "objective=annealed"),
    "flow_vae": ("experiment=digits_flow_vae",),
    "hoffman": ("experiment=digits_hoffman",),
    "vcd": ("experiment=digits_vcd",),
}
NAMES = sorted(METHODS)
# Of any of them: a small network and little data, 320 for training.
SMALL = (
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "latent_dim=2",
    "dataset.batch_size=64",
    "dataset.num_test=1377",
    "dataset.num_valid=100",
    "trainer.device=cpu",
    "trainer.max_epochs=2",
    "trainer.test_samples=5",
    "trainer.test_data=20",
)

# Everything of a batch, or one datum of it, is no number.
SPOILS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "all data": lambda x: torch.full_like(x, math.nan),
    "one datum": lambda x: x.index_fill(0, torch.tensor([1]), math.inf),
}


def some(names: Any, quick: tuple[str, ...]) -> list[Any]:
    """Names for `parametrize`; those that are not quick are slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def make(folder: Path, *words: str, small: tuple[str, ...] = SMALL) -> Trainer:
    """A trainer in a folder."""
    folder.mkdir(exist_ok=True)
    experiment = build_experiment(configuration(*small, *words), [])
    return Trainer(experiment.learner, experiment.settings, experiment.seed, folder, Notes(folder), Interruption())


def train(*words: str) -> int:
    """`metvae train`, small."""
    return metvae("train", *SMALL, *words)


def spoil_batches(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor], Tensor], wanted: Callable[[int], bool]
) -> None:
    """Training batches whose number, counted from 0, is wanted are spoiled."""
    batch, drawn = Dataset.batch, iter(range(10**9))

    def spoiled(self: Dataset, index: Tensor) -> Tensor:
        x = batch(self, index)
        return spoil(x) if wanted(next(drawn)) else x

    monkeypatch.setattr(Dataset, "batch", spoiled)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    """All that training changes of model and sampler."""
    return {name: tensor.clone() for name, tensor in trainer.modules.state_dict().items()}


def all_finite(value: Any) -> bool:
    """Whether every tensor in it, as of a checkpoint, is."""
    if isinstance(value, dict):
        return all(map(all_finite, value.values()))
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())


def table(folder: Path) -> list[dict[str, str]]:
    """metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def ending(folder: Path) -> dict[str, str]:
    """status.json."""
    return json.loads((folder / "status.json").read_text())
