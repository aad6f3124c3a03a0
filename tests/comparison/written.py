"""Directories as runs leave them, written by hand: no training is needed to compare."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "dataset": {"_target_": "metvae_cli.data.digits.Digits", "batch_size": 64},
    "likelihood": {"_target_": "metvae_cli.models.likelihoods.BernoulliLikelihood"},
    "sampler": {
        "_target_": "metvae_cli.kernels.hamiltonian.Hamiltonian",
        "num_steps": 3,
        "step_size": {"initial": 0.1},
    },
    "objective": {"_target_": "metvae_cli.objectives.weights.WeightObjective", "num_samples": 1},
    "optimizer": {"lr": 0.001},
    "trainer": {"max_epochs": 3, "log_every": 20},
    "latent_dim": 2,
    "plugins": [],
    "resume": None,
}
CHOICES = {
    "dataset": "digits",
    "likelihood": "bernoulli",
    "sampler": "hmc",
    "objective": "metvae",
    "experiment": "null",
}


def write_run(
    folder: Path,
    seed: int = 0,
    *,
    choices: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    typed: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    curve: Sequence[float] = (),
    status: str = "finished",
    reason: str = "",
    data: str = "f",
) -> Path:
    """A run with given choices, dotted settings and results; one that is not finished has no summary."""
    config = json.loads(json.dumps(CONFIG)) | {"seed": seed}
    for key, value in (settings or {}).items():
        *nodes, last = key.split(".")
        node = config
        for name in nodes:
            node = node[name]
        node[last] = value
    (folder / ".hydra").mkdir(parents=True)
    write(folder / "manifest.json", {"seed": seed, "config": config, "data": {"fingerprint": data}})
    write(folder / "status.json", {"status": status, "reason": reason, "time": "2026-01-01T00:00:00.000+00:00"})
    if status == "finished":
        usual = {"val/bound": -30.0, "test/nll": 31.0, "decoder_evaluations": 1000, "seconds": 2.5, "stopped": "x"}
        write(folder / "summary.json", {**usual, **(metrics or {})})
    write_hydra(folder, {**CHOICES, **(choices or {})}, typed)
    if curve:
        lines = ["epoch,iteration,seconds,decoder_evaluations,val/bound"]
        lines += [f"{i + 1},{10 * (i + 1)},{0.5 * (i + 1)},{100 * (i + 1)},{value}" for i, value in enumerate(curve)]
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_hydra(folder: Path, choices: Mapping[str, str], typed: Sequence[str]) -> None:
    """What Hydra leaves of the command line and the choices, as it lays it out."""
    lines = ["hydra:", "  mode: RUN", "  overrides:", "    hydra: []"]
    lines += ["    task:", *(f"    - {word}" for word in typed)] if typed else ["    task: []"]
    lines += ["  runtime:", "    choices:", *(f"      {group}: {name}" for group, name in choices.items())]
    lines += ["      hydra/sweeper: basic", "  verbose: false"]
    (folder / ".hydra" / "hydra.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_sweep_file(folder: Path, typed: Sequence[str]) -> None:
    """The file that Hydra leaves in the directory of a sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["hydra:", "  overrides:", "    hydra:", "    - hydra.mode=MULTIRUN", "    task:"]
    lines += [*(f"    - {word}" for word in typed), "  job:", "    name: train", "    config_name: train"]
    (folder / "multirun.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
