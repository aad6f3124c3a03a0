"""What each of several seeds has of its own in the directory of all: words, and a log."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from metvae_cli.tracking.console import LogFile
from metvae_cli.tracking.whole_file import whole

_OWN_KEYS = ("seed", "trainer.replicas")


def seed_folder(folder: Path, seed: int) -> Path:
    """Where the run of a seed is."""
    return folder / f"seed_{seed}"


def store_own_words(folder: Path, seed: int) -> None:
    """Write `.hydra/` of the run of a seed: what `metvae train seed=SEED` with the other words would write."""
    source, stored = folder / ".hydra", seed_folder(folder, seed) / ".hydra"
    stored.mkdir(parents=True, exist_ok=True)
    config: Any = OmegaConf.load(source / "config.yaml")
    config.seed, config.trainer.replicas = seed, 1
    _save(config, stored / "config.yaml")
    if (source / "overrides.yaml").is_file():
        words = [str(word) for word in OmegaConf.load(source / "overrides.yaml")]
        own = [word for word in words if word.partition("=")[0].lstrip("+") not in _OWN_KEYS] + [f"seed={seed}"]
        _save(OmegaConf.create(own), stored / "overrides.yaml")
        hydra: Any = OmegaConf.load(source / "hydra.yaml")
        hydra.hydra.overrides.task = own
        _save(hydra, stored / "hydra.yaml")


def _save(content: Any, path: Path) -> None:
    with whole(path) as temporary:
        OmegaConf.save(content, temporary)


class Voices:
    """Log lines of several runs: each in the log of its own run, and warnings, with the seed, where all others go.

    with Voices(folder, seeds) as voices:
        with voices.of(seed):
            ...
    """

    def __init__(self, folder: Path, seeds: Sequence[int]) -> None:
        self._speaking: int | None = None
        self._others = list(logging.getLogger().handlers)
        form = next((handler.formatter for handler in self._others if isinstance(handler, logging.FileHandler)), None)
        self._own: list[logging.Handler] = []
        for seed in seeds:
            handler = LogFile(seed_folder(folder, seed) / "train.log")
            handler.setFormatter(form)
            handler.addFilter(lambda record, seed=seed: self._speaking == seed)
            self._own.append(handler)

    def __enter__(self) -> "Voices":
        for handler in self._others:
            handler.addFilter(self._is_for_all)
        logging.getLogger().handlers[:0] = self._own  # first: they are to see lines without the seed
        return self

    def __exit__(self, *error: object) -> None:
        for handler in self._others:
            handler.removeFilter(self._is_for_all)
        for handler in self._own:
            logging.getLogger().removeHandler(handler)
            handler.close()

    @contextmanager
    def of(self, seed: int) -> Iterator[None]:
        """Inside, the run of a seed speaks."""
        self._speaking = seed
        try:
            yield
        finally:
            self._speaking = None

    def _is_for_all(self, record: logging.LogRecord) -> bool:
        if self._speaking is None:
            return True
        mark = f"seed {self._speaking}: "
        if record.levelno >= logging.WARNING and not str(record.msg).startswith(mark):
            record.msg = f"{mark}{record.msg}"
        return record.levelno >= logging.WARNING
