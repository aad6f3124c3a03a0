"""What TensorBoard says of a run as a whole: its configuration, its command lines, its row among hyper-parameters."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from metvae_cli.tracking.run_directory import read_manifest
from metvae_cli.tracking.tensorboard import Board, flatten, verbatim

# Results in the HPARAMS table, of runs that train on data and of those on a density.
TRAINED = ("val/bound", "test/nll", "test/nll_se", "train/bound", "test/bound", "seconds", "decoder_evaluations")
INFERRED = (
    "bound",
    "bound_se",
    "log_normalizer_error",
    "samples/modes_found",
    "chains/r_hat",
    "chains/effective_size_per_evaluation",
    "seconds",
    "training_evaluations",
)
# Columns that every run of a command has, whatever it consists of; a number stands where there is none of it.
_GROUPS = (
    "dataset",
    "prior",
    "encoder",
    "decoder",
    "likelihood",
    "target",
    "initial",
    "sampler",
    "objective",
    "optimizer",
)
_KEYS = {
    "seed": 0,
    "latent_dim": 0,
    "sampler.num_steps": 0,
    "sampler.acceptance": "none",
    "sampler.schedule": "none",
    "objective.num_samples": 0,
    "optimizer.lr": 0.0,
}
_NONE = "none"
_SHOWN = 5
_TELLING = ("sampler", "objective", "seed", "experiment", "sampler.num_steps")


def introduce(board: Board, config: Mapping[str, Any], folder: Path, results: tuple[str, ...]) -> None:
    """Say what a run is: at its start, and again when it goes on."""
    text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    board.text("config", verbatim(text))
    starts = read_manifest(folder).get("starts", [])
    board.text("command", verbatim("\n".join(_command(start["argv"]) for start in starts)))
    board.layout()
    choices, varied = _composition(folder)
    first = list(dict.fromkeys([*varied, *_TELLING]))[:_SHOWN]
    board.begin_session(_columns(config, choices, varied), results, first)


def _columns(config: Mapping[str, Any], choices: Mapping[str, str], varied: Sequence[str]) -> dict[str, str | float]:
    """The columns of a run's row: the same set for all runs of a command, and in a sweep what its jobs differ in too.

    TensorBoard makes one table of all runs that it sees, with the columns of one of them.
    """
    flat = flatten(config)
    columns: dict[str, str | float] = {}
    for group in (group for group in _GROUPS if group in config):
        columns[group] = choices.get(group) or _class_name(config[group])
    columns["experiment"] = choices.get("experiment") or _NONE
    columns |= {key: _plain(flat.get(key), absent) for key, absent in _KEYS.items()}
    for key in varied:
        if key not in columns:
            columns[key] = choices.get(key) or _plain(flat.get(key), _NONE)
    return columns


def _composition(folder: Path) -> tuple[dict[str, str], list[str]]:
    """What a run was composed of, as Hydra wrote it down: the choice from each group, and the keys that its sweep
    varies; nothing where a run has no such file of its own.
    """
    try:
        stored: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "hydra.yaml"), resolve=False)
        node = stored["hydra"]
        choices = {group: str(name) for group, name in node["runtime"]["choices"].items() if name is not None}
        if node["mode"] != "MULTIRUN":
            return choices, []
        same = node["job"]["config"]["override_dirname"]["exclude_keys"]
        keys = [word.partition("=")[0].lstrip("+~").partition("@")[0] for word in node["overrides"]["task"]]
    except (OSError, YAMLError, OmegaConfBaseException, KeyError, TypeError, AttributeError):
        return {}, []
    return choices, [key for key in keys if key not in same]


def _class_name(node: Any) -> str:
    """Of what a node configures, where it is not known by which choice it came."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return str(target).rpartition(".")[2] if target else _NONE


def _plain(value: str | float | None, absent: str | float) -> str | float:
    """A cell: a number or text."""
    if value is None or value == "None":
        return absent
    if isinstance(value, bool):
        return json.dumps(value)
    return value


def _command(argv: list[str]) -> str:
    return " ".join([argv[0], shlex.join(argv[1:])]) if argv else ""
