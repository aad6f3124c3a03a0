"""The words of a run in its directory: `.hydra/`, as Hydra itself would write it."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from metvae_cli.commands.hydra_entry import is_sweep
from metvae_cli.commands.hydra_errors import unwritable
from metvae_cli.errors import ConfigError
from metvae_cli.paths import discard_run
from metvae_cli.tracking.whole_file import whole


def store_words(config: DictConfig, folder: Path) -> None:
    """Write `.hydra/` of a run: what Hydra itself would write before it is known whether the directory is free.

    Raises:
        ConfigError: it cannot be written. The directory made for a single run is removed again
    """
    stored = folder / ".hydra"
    words = HydraConfig.get().overrides.task
    try:
        stored.mkdir(exist_ok=True)
        for name, content in (("config", config), ("hydra", HydraConfig.instance().cfg), ("overrides", words)):
            with whole(stored / f"{name}.yaml") as temporary:
                OmegaConf.save(content, temporary)
    except OSError as error:
        if not is_sweep():
            discard_run(folder, HydraConfig.get().job.name, has_words=True)
        raise ConfigError(unwritable(str(folder), error)) from error
