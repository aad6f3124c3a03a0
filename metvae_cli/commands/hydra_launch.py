"""Hydra's launchers without a sweeper of Hydra's: jobs are given to them batch by batch, as what is known grows.

A sweeper of one's own would have to be in a package called hydra_plugins, which belongs to everybody.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from metvae_cli.commands.hydra_errors import hydra_errors
from metvae_cli.commands.hydra_gate import guarded
from metvae_cli.commands.hydra_surroundings import job_forgotten
from metvae_cli.paths import config_dir


class Launching(NamedTuple):
    """A launcher that is ready, with what composes the configurations of its jobs from that of all of them."""

    launcher: Launcher
    loader: ConfigLoader
    config: DictConfig

    def job(self, words: Sequence[str], number: int) -> DictConfig:
        """The configuration of a job, as its launcher will compose it.

        Raises:
            HydraException: it cannot be composed
        """
        config = self.loader.load_sweep_config(self.config, list(words))
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = number, str(number)
        return config

    def directory(self, words: Sequence[str], number: int) -> str:
        """The directory of a job, in that of the sweep."""
        config, holder = self.job(words, number), HydraConfig.instance()
        before = holder.cfg
        holder.set_config(config)  # a directory may be named by ${hydra:...}
        try:
            return str(OmegaConf.select(config, "hydra.sweep.subdir"))
        finally:
            holder.cfg = before

    def launch(self, batch: Sequence[Sequence[str]], first: int) -> None:
        """Run jobs with successive numbers, of which the first is given; returns when all have ended."""
        self.launcher.launch([list(words) for words in batch], initial_job_idx=first)


@contextmanager
def launching(entry: Callable[[DictConfig], Any], config_name: str, argv: Sequence[str]) -> Iterator[Launching]:
    """Inside, jobs can be launched that call `entry`; from inside of `stamped`.

    argv: as for a sweep of Hydra's

    Raises:
        ConfigError: an override that cannot be composed
    """
    given = get_args_parser().parse_args(list(argv))
    with hydra_errors(config_name, argv), job_forgotten():
        GlobalHydra.instance().clear()
        search_path = create_config_search_path(str(config_dir()))
        if given.config_dir:
            place = f"file://{Path(given.config_dir).resolve()}"
            search_path.prepend("command-line", place, SearchPathQuery(provider="schema"))
        with guarded():
            hydra = Hydra.create_main_hydra2(config_name, search_path)
        name = given.config_name or config_name
        words = [*given.overrides, "hydra.mode=MULTIRUN"]  # as -m is for Hydra, whose jobs then know what they are
        config = hydra.compose_config(name, words, RunMode.MULTIRUN, with_log_configuration=True)
        callbacks = Callbacks(config)
        callbacks.on_multirun_start(config=config, config_name=name)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
        launcher = Plugins.instance().instantiate_launcher(context, entry, config)
        try:
            yield Launching(launcher, hydra.config_loader, config)
            callbacks.on_multirun_end(config=config, config_name=name)
        finally:
            GlobalHydra.instance().clear()  # as Hydra itself leaves it
