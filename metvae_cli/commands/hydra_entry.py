"""Running a command through Hydra, with its errors as one line that names the key and the nearest valid word."""

import errno
import functools
import os
import re
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
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from metvae_cli.commands.hydra_gate import guarded
from metvae_cli.commands.hydra_surroundings import arguments, environment, job_forgotten
from metvae_cli.errors import ConfigError
from metvae_cli.paths import MADE, config_dir
from metvae_cli.schema import did_you_mean

SWEEPS = ("-m", "--multirun")
_LAUNCHERS = (
    "joblib",
    "submitit_local",
    "submitit_slurm",
)  # come with hydra-joblib-launcher and hydra-submitit-launcher
# Of words and of files that cannot be composed: no such key, no such file, no YAML, interpolations without end.
NOT_COMPOSED = (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError)


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
def hydra_errors(config_name: str, argv: Sequence[str]) -> Iterator[None]:
    """Inside, what Hydra cannot do is a ConfigError in one line."""
    try:
        yield
    except NOT_COMPOSED as error:
        if isinstance(error.__cause__, OSError):  # of the log that Hydra opens
            raise ConfigError(unwritable(error.__cause__.filename, error.__cause__)) from error
        raise ConfigError(_one_line(error, config_name, argv)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(unwritable(error.filename or "the output directory", error)) from error


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
        raise ConfigError(_one_line(error, command, words)) from error


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
        raise ConfigError(_one_line(error, config_name, overrides)) from error


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
        raise ConfigError(_one_line(error, "", words)) from error


def output_folder() -> Path:
    """The directory that Hydra made for this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def is_sweep() -> bool:
    """Whether this job is one of a sweep's."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def unwritable(place: str, error: OSError) -> str:
    """What to say of a place that cannot be written."""
    remedy = "free some space, or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose"
    return f"{place}: cannot be written ({error.strerror}); {remedy} another directory"


def override_value(argv: Sequence[str], key: str) -> str | None:
    """The value of `key=value` on a command line; the last one counts."""
    values = [word.partition("=")[2] for word in argv if word.partition("=")[0] == key]
    value = values[-1] if values else None
    if value and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":  # Hydra's own quotes
        return value[1:-1].replace(f"\\{value[0]}", value[0])
    return value


def _one_line(error: Exception, config_name: str, argv: Sequence[str]) -> str:
    text = _said(error)
    if plugin := re.search(rf"Could not \w+ 'hydra/launcher/({'|'.join(_LAUNCHERS)})'", text):
        return f"hydra/launcher={plugin.group(1)}: is not installed; pip install 'metvae[sweep]'"
    if missing := re.search(r"Could not find '([^']+)/([^']+)'", text):
        group, choice = missing.groups()
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return f"{group}={choice}: no such choice{did_you_mean(choice, options)}"
    if unknown := re.search(r"Could not override '([^']+)'", text):
        key = unknown.group(1)
        if key.startswith("hydra.sweeper.") and not any(word.startswith("hydra/sweeper=") for word in argv):
            return f"{key}: is for searches; add hydra/sweeper=optuna"
        return f"{key}: unknown key{did_you_mean(key, _known_keys(config_name, argv, key))}"
    if absent := re.search(r"Could not delete from config\. '([^']+)' does not exist", text):
        key = absent.group(1)
        return f"~{key}: there is no such key to leave out{did_you_mean(key, _known_keys(config_name, argv, key))}"
    if absent := re.search(r"Cannot find primary config '([^']*)'", text):
        return f"--config-name={absent.group(1)}: no such file in --config-dir or among what ships with metvae"
    if "Primary config module" in text:
        word = next((word for word in argv if word.startswith(("--config-path", "-cp"))), "--config-path")
        return f"{word}: must be an absolute directory; files beside metvae's own are found by --config-dir=DIR"
    if function := re.search(r"while evaluating '((?:choice|range|interval|glob)\(\))'", text):
        word = next((word for word in argv if function.group(1) in word), function.group(1))
        return f"{word}: names no values; -m runs several, like seed=choice(0,1) or seed=range(0,3)"
    if several := re.search(r"Ambiguous value for argument '(.*)'", text):
        key, _, value = several.group(1).partition("=")
        return (
            f"{key}={value}: is several values; -m runs each of them, {key}=[{value}] is a list, and one value with "
            f"commas is {_quoted(key, value)}"
        )
    if "Config group override must be" in text:
        word = next((word for word in argv if _chooses_nothing(word)), " ".join(argv))
        return f"{word}: must be the name of a choice; `metvae configs list` shows all"
    if "override_grammar" in text:
        found = re.search(r"Error parsing override '(.*)'", text)
        word = found.group(1) if found else next((word for word in argv if _wants_quotes(word)), " ".join(argv))
        key, equals, value = word.partition("=")
        if equals and key and _wants_quotes(word):
            return f"{key}={value}: has characters that Hydra reads in its own way; write {_quoted(key, value)}"
        return f"{word}: not of the form key=value or group=choice"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _said(error: BaseException) -> str:
    """What an error says, or else what caused it says: Hydra wraps some in one without words."""
    said = str(error)
    return said if said.strip() or error.__cause__ is None else _said(error.__cause__)


def _wants_quotes(word: str) -> bool:
    """A value with characters that are neither plain nor those of a list or a number."""
    value = word.partition("=")[2]
    return bool(value) and value[0] not in "'\"[{$=" and re.search(r"[^\w./\-:+%@*,$?]", value) is not None


def _quoted(key: str, value: str) -> str:
    """What to type, in a shell, for a value that Hydra is to take as it is."""
    for_hydra = value.replace("'", "\\'")
    return '"' + re.sub(r'(["$`])', r"\\\1", f"{key}='{for_hydra}'") + '"'


def _chooses_nothing(word: str) -> bool:
    """Whether an override of a group is no name, like `sampler=null` or `sampler=3`."""
    group, _, choice = word.lstrip("+").partition("=")
    return (config_dir() / group).is_dir() and (choice == "null" or not re.match(r"[A-Za-z_]", choice))


def _known_keys(config_name: str, argv: Sequence[str], bad: str) -> list[str]:
    """Every key and group of the configuration that the other overrides compose."""
    others = [word for word in argv if not word.startswith("-") and word.partition("=")[0].strip("+~") != bad]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        for overrides in (others, [word for word in others if word.startswith("hydra/")], []):
            try:
                hydras = bad.startswith("hydra")
                return list(_dotted(compose(config_name, overrides=list(overrides), return_hydra_config=hydras)))
            except (HydraException, OmegaConfBaseException):
                continue
    return []


def _dotted(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        yield f"{prefix}{key}"
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            yield from _dotted(value, f"{prefix}{key}.")
