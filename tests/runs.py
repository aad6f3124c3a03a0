"""Tiny training runs, in this process or in one of their own."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from metvae_cli import cli
from metvae_cli.paths import config_dir
from metvae_cli.plain_config import plain

CHECKOUT = Path(__file__).parents[1]
TINY = (
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "latent_dim=2",
    "sampler.num_steps=2",
    "trainer.device=cpu",
    "trainer.max_epochs=2",
    "trainer.test_samples=5",
    "trainer.test_data=20",
)
# What `metvae infer` measures, cut short.
BRIEF = (
    "evaluation.draws=64",
    "evaluation.chains=2",
    "evaluation.chain_draws=10",
    "evaluation.warm_up=5",
    "evaluation.walk=5",
    "batch_size=8",
    "epoch_iterations=4",
    "trainer.max_epochs=2",
    "trainer.device=cpu",
)


@contextmanager
def own_globals() -> Iterator[None]:
    """Hydra and logging are the process's: afterwards they are what they were, and log files are closed."""
    root = logging.getLogger()
    handlers, level, full = list(root.handlers), root.level, os.environ.pop("HYDRA_FULL_ERROR", None)
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        GlobalHydra.instance().clear()
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full


def metvae(*words: str) -> int:
    """`metvae WORDS` in this process; returns the exit status."""
    with own_globals():
        return cli.main(list(words))


def train(*words: str) -> int:
    """`metvae train` of a tiny model."""
    return metvae("train", *TINY, *words)


def infer(*words: str) -> int:
    """`metvae infer` for a moment."""
    return metvae("infer", *BRIEF, *words)


def command(*words: str) -> list[str]:
    """The words that start metvae in a process of its own."""
    return [sys.executable, "-m", "metvae_cli.cli", *words]


def environment() -> dict[str, str]:
    """For a process that finds metvae_cli wherever it is started, and computes like this one."""
    return os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Start metvae in a process of its own."""
    return subprocess.Popen(
        command(*words), cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def files(folder: Path) -> set[str]:
    """Every file and folder below, by its relative name."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def configuration(*words: str, command: str = "train") -> dict[str, Any]:
    """The resolved configuration that `metvae train WORDS`, or another command, would run."""
    with own_globals(), initialize_config_dir(str(config_dir()), version_base="1.3"):
        return plain(compose(command, overrides=list(words)))
