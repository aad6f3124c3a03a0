"""Every method on the embedded digits: two epochs, no step lost, and a better bound than after the first."""

import csv
import json
from pathlib import Path

import pytest

from metvae_cli.paths import config_dir
from tests.runs import metvae

NAMES = sorted(path.stem for path in (Path(config_dir()) / "experiment").glob("digits_*.yaml"))
METHODS = [
    "vae",
    "iwae",
    "renyi",
    "metvae_hmc",
    "metvae_flow",
    "metvae_stopped",
    "lmcvae",
    "amcvae",
    "uha",
    "hvae",
    "flow_vae",
    "hoffman",
    "vcd",
]


def test_every_method_has_its_experiments() -> None:
    assert {f"digits_{method}" for method in METHODS} <= set(NAMES)
    for method in METHODS:
        assert (Path(config_dir()) / "experiment" / f"mnist_{method}.yaml").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_learns(name: str, tmp_path: Path) -> None:
    words = ("trainer.max_epochs=2", "trainer.test_samples=10", "trainer.test_data=50", "trainer.device=cpu")
    assert metvae("train", f"experiment={name}", *words, f"hydra.run.dir={tmp_path}") == 0
    with (tmp_path / "metrics.csv").open(newline="") as file:
        bounds = [float(row["val/bound"]) for row in csv.DictReader(file)]
    assert len(bounds) == 2
    assert bounds[1] > bounds[0]
    assert json.loads((tmp_path / "summary.json").read_text())["bad_steps"] == 0
