"""The gate on Hydra's own node: files may not say to Hydra what the user has to say himself.

Hydra makes callbacks, launchers, sweepers and log handlers before metvae is asked, sets the environment and imports
packages. What does that counts if it ships with metvae or stands on the command line, and is refused where a file of
`--config-dir`, `--config-path`, `--config-name` or `hydra.searchpath` says it. Where a run goes, how many jobs run side
by side and what is swept over are free.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import hydra._internal.hydra as hydra_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metvae_cli.errors import ConfigError
from metvae_cli.paths import config_dir
from metvae_cli.plain_config import refuse_unfolding
from metvae_cli.plain_yaml import refuse_large

# Parts of the node that run code, name files to write or change where names are looked up.
_PARTS = ("callbacks", "hydra_logging", "job_logging", "output_subdir", "job.env_set", "job.env_copy", "job.chdir")
_SWEEPER = ("sweeper._target_", "sweeper.storage")
# What may start jobs, by its class, and the choice that ships.
_SHIPPED: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "launcher": {
            "hydra._internal.core_plugins.basic_launcher.BasicLauncher": "basic",
            "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": "local_jobs",
            "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": "local_processes",
            "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": "slurm",
        },
        "sweeper": {
            "hydra._internal.core_plugins.basic_sweeper.BasicSweeper": "basic",
            "metvae_cli.search.settings.SearchSettings": "optuna",
        },
    }
)
_ONLY_TYPED = ("plugins", "target.path", "hydra")
_PLAIN_KEY = re.compile(r"[A-Za-z][\w./]*")


class GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader of configurations, of single runs and of every job of a sweep, with the gate behind it."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """As Hydra's. Raises ConfigError where a file says what only the command line may, or all say too much."""
        config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        if len(config.hydra.overrides.task) + len(config.hydra.overrides.hydra) != len(overrides):
            raise ConfigError(
                "hydra.overrides: stands in a file, which would pass for what you type; remove it from there"
            )
        if any(_is_foreign(source) for source in config.hydra.runtime.config_sources):
            typed = [str(word) for word in config.hydra.overrides.hydra]
            _check(config.hydra, _reference(config, config_name, typed))
        refuse_unfolding(config)
        return config

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: CachingConfigRepository
    ) -> None:
        """As Hydra's, which imports the packages of a search path at once."""
        loaded = repo.load_config(config_path=config_name) if config_name is not None else None
        typed = any(override.get_key_element() == "hydra.searchpath" for override in parsed_overrides)
        if not typed and loaded is not None and OmegaConf.is_dict(loaded.config):
            found = OmegaConf.select(loaded.config, "hydra.searchpath")
            if found:
                raise ConfigError(_refusal("hydra.searchpath", "it imports packages", list(found)))
        super()._process_config_searchpath(config_name, parsed_overrides, repo)


@contextmanager
def guarded() -> Iterator[None]:
    """Inside, Hydra loads every configuration through the gate: nothing else can be put between the two."""
    Plugins.instance()  # registers what reads files, which is not the class that an import gives
    files = SourcesRegistry.instance().resolve("file")
    name, load = ConfigLoaderImpl.__name__, files.load_config
    before = getattr(hydra_module, name)

    def load_bounded(source: ConfigSource, config_path: str) -> ConfigResult:
        file = Path(source.path, config_path)
        file = file if file.suffix == ".yaml" else file.with_name(f"{file.name}.yaml")
        if source.path != str(config_dir()) and file.is_file():
            try:
                refuse_large(file)
            except ValueError as error:
                raise ConfigError(f"{file}: cannot be used, {error}") from error
        return load(source, config_path)

    setattr(hydra_module, name, GuardedLoader)
    setattr(files, load.__name__, load_bounded)
    try:
        yield
    finally:
        setattr(hydra_module, name, before)
        setattr(files, load.__name__, load)


def _is_foreign(source: DictConfig) -> bool:
    """Whether files of a source are neither metvae's, nor Hydra's, nor an installed plugin's."""
    named = source.provider == "command-line" or "searchpath" in source.provider
    return named or (source.schema == "file" and source.path != str(config_dir()))


def _reference(config: DictConfig, config_name: str | None, typed: Sequence[str]) -> DictConfig:
    """Hydra's node as shipped files and the command line alone make it."""
    name = config_name if config_name and (config_dir() / f"{config_name}.yaml").is_file() else "train"
    words = [word for word in typed if not word.startswith(("hydra/launcher=", "hydra/sweeper=", "hydra.searchpath="))]
    for part, shipped in _SHIPPED.items():
        target = str(config.hydra[part].get("_target_"))
        if target not in shipped:
            raise ConfigError(_refusal(f"hydra.{part}._target_", "it starts what it names", target))
        words.insert(0, f"hydra/{part}={shipped[target]}")
    loader = ConfigLoaderImpl(create_config_search_path(str(config_dir())))
    try:
        return loader.load_configuration(name, words, RunMode.MULTIRUN, validate_sweep_overrides=False).hydra
    except (HydraException, OmegaConfBaseException) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"{' '.join(typed)}: needs a file that does not ship with metvae ({reason})") from error


def _check(node: DictConfig, reference: DictConfig) -> None:
    """Raise ConfigError for the first entry of Hydra's node that only a file can have put there."""
    for part in (*_PARTS, *_SWEEPER):
        _compare(part, _plain(node, part), _plain(reference, part), numbers_are_free=False)
    _compare("launcher", _plain(node, "launcher"), _plain(reference, "launcher"), numbers_are_free=True)
    if "/" in str(node.job.name):
        raise ConfigError(_refusal("hydra.job.name", "a log would be written elsewhere", node.job.name))
    for key in _plain(node, "sweeper.params") or {}:
        if not _PLAIN_KEY.fullmatch(str(key)) or str(key).startswith(_ONLY_TYPED):
            raise ConfigError(_refusal(f"hydra.sweeper.params.{key}", "it would pass for what you type"))


def _plain(node: DictConfig, part: str) -> Any:
    """A part as plain containers, interpolations as they stand."""
    parent, _, key = part.rpartition(".")
    found = cast(dict[str, Any], OmegaConf.to_container(node[parent] if parent else node, resolve=False))
    return found.get(key)


def _compare(place: str, found: Any, expected: Any, *, numbers_are_free: bool) -> None:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key, value in found.items():
            _compare(f"{place}.{key}", value, expected.get(key), numbers_are_free=numbers_are_free)
        return
    free = numbers_are_free and (found is None or isinstance(found, bool | int | float))
    if found != expected and not free:
        raise ConfigError(_refusal(f"hydra.{place}", "it may run code or write files", found))


def _refusal(key: str, why: str, value: object = None) -> str:
    shown = "" if value is None else f"={str(value)[:80]}"
    return (
        f"{key}{shown}: stands in a file, and {why}; Hydra is told so on the command line only: "
        "remove it from the file, or type it yourself"
    )
