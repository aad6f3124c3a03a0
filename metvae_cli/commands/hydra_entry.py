"""Running a command through Hydra, and what its command line says."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metvae_cli.commands.hydra_errors import NOT_COMPOSED, hydra_errors, in_one_line
from metvae_cli.commands.hydra_gate import guarded
from metvae_cli.commands.hydra_surroundings import arguments, environment, job_forgotten
from metvae_cli.errors import ConfigError
from metvae_cli.paths import MADE, config_dir

SWEEPS = ("-m", "--multirun")


def run_once(task: Callable[[DictConfig], Any], config_name: str, argv: Sequence[str]) -> None:
    """Compose `configs/<config_name>.yaml` with the overrides and call `task`.

    Raises:
        ConfigError: an override that cannot be composed; nothing has been written then
        whatever the task raises
    """
    failures: list[Exception] = []

    @functools.wraps(task)
    def single(config: DictConfig) -> Any:
        # Hydra prints a line of its own about a job that raises; of a single one the caller says all there is to say.
        try:
            return task(config)
        except Exception as error:
            failures.append(error)

    with stamped():
        run_with_hydra(single, config_name, argv)
    if failures:
        raise failures[0]


def run_with_hydra(entry: Callable[[DictConfig], Any], config_name: str, argv: Sequence[str]) -> None:
    """Let Hydra compose and call `entry`, once or, with -m, once per job, from inside of `stamped`.

    Raises:
        ConfigError: an override that cannot be composed
        whatever `entry` raises
    """
    application = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(entry)
    program = f"metvae {config_name}"
    place = Path(override_value(argv, "hydra.run.dir") or ".")
    made = "" if place.exists() else os.path.realpath(place)  # resolve() raises where links go round
    with (
        environment(**{"HYDRA_FULL_ERROR": "1", MADE: made}),  # errors are raised, not printed with status 1
        arguments(program, argv),
        hydra_errors(config_name, argv),
        guarded(),
        job_forgotten(),
    ):
        application()


@contextmanager
def stamped() -> Iterator[None]:
    """Inside, METVAE_STAMP names directories of this start alone."""
    with environment(METVAE_STAMP=f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}_{os.getpid()}"):
        yield


def composed_for_sweep(command: str, options: Sequence[str], words: Sequence[str]) -> tuple[list[Override], DictConfig]:
    """The overrides of a sweep, and its configuration with Hydra's own node, at the first value of each.

    Raises:
        ConfigError: it cannot be composed
    """
    given = get_args_parser().parse_args(list(options))
    GlobalHydra.instance().clear()
    try:
        with guarded(), initialize_config_dir(str(config_dir()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            overrides = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
            found = [f"hydra.searchpath=[file://{Path(given.config_dir).resolve()}]"] if given.config_dir else []
            firsts = [word for override in overrides for word in _first(override)]
            name = given.config_name or command
            return overrides, compose(name, overrides=[*found, *firsts], return_hydra_config=True)
    except NOT_COMPOSED as error:
        raise ConfigError(in_one_line(error, command, words)) from error


def composed_alone(command: str, words: Sequence[str]) -> DictConfig:
    """The configuration of a single run, without Hydra's own node; nothing is written. Raises ConfigError."""
    given = get_args_parser().parse_args(list(words))
    options = [word for word in words if word not in given.overrides]
    _, config = composed_for_sweep(command, options, given.overrides)
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _first(override: Override) -> list[str]:
    """One override that a job could have; none where there is none, as in range(3,3)."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    value = override.value()
    values = [str(value.start)] if isinstance(value, IntervalSweep) else list(override.sweep_string_iterator())
    return [f"{override.get_key_element()}={value}" for value in values[:1]]


def options_first(argv: Sequence[str], command: str) -> list[str]:
    """The words as Hydra's argparse takes them: it wants no option between two overrides.

    Raises:
        ConfigError: an option that there is not
    """
    parser = get_args_parser()

    def error(message: str) -> NoReturn:
        raise ConfigError(f"{message}; `metvae help {command}` shows what may be said")

    parser.error = error
    sweeps = [word for word in argv if word in SWEEPS]
    words = [*sweeps[:1], *(word for word in argv if word not in SWEEPS)]
    if parser.parse_args(words).experimental_rerun is not None:
        raise ConfigError(f"--experimental-rerun: would run what a pickle says; say metvae {command} resume=RUN")
    return words


def composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Another configuration, inside of a job of Hydra's. Raises ConfigError."""
    try:
        return compose(config_name, overrides=list(overrides))
    except NOT_COMPOSED as error:
        raise ConfigError(in_one_line(error, config_name, overrides)) from error


def words_to_repeat() -> list[str]:
    """What a resume takes from the command line alone, of this job's: code of the user's is run only if named there."""
    return [word for word in HydraConfig.get().overrides.task if word.startswith(("plugins=", "target.path="))]


def named_plugins() -> list[str]:
    """The modules in `plugins=[...]` of this job's command line (not of any file)."""
    return plugins_in(words_to_repeat())


def plugins_in(overrides: Sequence[str]) -> list[str]:
    """The modules named by a `plugins=` override. Raises ConfigError where it cannot be read."""
    for override in _parsed([word for word in overrides if word.startswith("plugins=")]):
        value = override.value()
        return [str(name) for name in value] if isinstance(value, list) else [str(value)]
    return []


def typed_values(key: str, overrides: Sequence[str] | None = None) -> list[str]:
    """The values that the command line, this job's if no other is given, sets a key to (and no file).

    Raises:
        ConfigError: one cannot be read
    """
    words = HydraConfig.get().overrides.task if overrides is None else overrides
    chosen = [word for word in words if word.partition("=")[0].lstrip("+") == key]
    return [str(override.value()) for override in _parsed(chosen)]


def _parsed(words: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them, also where it is not Hydra that was given them: on a resume."""
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except NOT_COMPOSED as error:
        raise ConfigError(in_one_line(error, "", words)) from error


def output_folder() -> Path:
    """The directory that Hydra made for this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def is_sweep() -> bool:
    """Whether this job is one of a sweep's."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def override_value(argv: Sequence[str], key: str) -> str | None:
    """The value of `key=value` on a command line; the last one counts."""
    values = [word.partition("=")[2] for word in argv if word.partition("=")[0] == key]
    value = values[-1] if values else None
    if value and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":  # Hydra's own quotes
        return value[1:-1].replace(f"\\{value[0]}", value[0])
    return value
