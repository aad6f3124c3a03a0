"""What a run has to know of the search that it is a trial of, which is on Hydra's own node of its configuration."""

from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from metvae_cli.commands.hydra_entry import is_sweep, output_folder
from metvae_cli.commands.sweep_space import search_settings
from metvae_cli.errors import Pruned
from metvae_cli.training.state import State
from metvae_cli.training.trainer import PRUNED


def is_behind(folder: Path) -> Callable[[int, float], bool] | None:
    """What says, after each validation of the run in a directory, whether it is to stop; None where nothing does."""
    if not HydraConfig.initialized() or not is_sweep() or output_folder().resolve() != folder.resolve():
        return None  # the last: one of several methods in a job
    hydra = HydraConfig.get()
    settings = search_settings(hydra.sweeper)
    if settings is None or settings.storage is None or settings.pruner == "none":
        return None
    from metvae_cli.search.pruning import Pruning  # here: Optuna is not always installed

    return Pruning(settings.storage, settings, hydra.job.num)


def raise_if_pruned(reason: str, state: State) -> None:
    """Raise Pruned if that is why training ended."""
    if reason == PRUNED:
        raise Pruned(f"after epoch {state.epoch}, best val/bound {state.best_value:.3f}", state.best_value)
