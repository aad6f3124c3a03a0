"""What a user may say about a search; the keys of `configs/hydra/sweeper/optuna.yaml`."""

import importlib.util
from dataclasses import dataclass
from typing import Literal

from metvae_cli.errors import ConfigError
from metvae_cli.schema import check_seed


@dataclass(frozen=True)
class SearchSettings:
    """A search for the largest value.

    Args:
        n_trials: in all, those of earlier starts and those that failed included
        sampler: what proposes values
        seed: of the sampler
        n_startup_trials: finished trials at random before `tpe` takes over, and before `median` stops any
        pruner: what stops runs that are behind the others
        prune_after: epochs that every run is given
        storage: the address of the study's data base; None is a file in the directory of the sweep
        study_name: of the study in it
        max_batch_size: trials at a time; None is what the launcher says

    Raises:
        ValueError: a number is out of range
    """

    n_trials: int = 20
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = 0
    n_startup_trials: int = 10
    pruner: Literal["none", "median", "hyperband"] = "none"
    prune_after: int = 5
    storage: str | None = None
    study_name: str = "search"
    max_batch_size: int | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("n_trials", "prune_after", "max_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if self.n_startup_trials < 0:
            raise ValueError(f"n_startup_trials={self.n_startup_trials}: must be 0 or more")
        if self.storage is not None and "://" not in self.storage:
            raise ValueError(f"storage={self.storage}: is no address; write sqlite:////FOLDER/FILE.db")


def require_optuna(word: str) -> None:
    """Raise ConfigError where Optuna is not installed. word: what asked for it."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"{word}: Optuna is not installed; pip install 'metvae[optuna]'")
