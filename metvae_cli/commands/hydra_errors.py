"""What Hydra cannot do, as one line that names the key and the nearest valid word."""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from metvae_cli.errors import ConfigError
from metvae_cli.paths import config_dir
from metvae_cli.schema import did_you_mean

_LAUNCHERS = (
    "joblib",
    "submitit_local",
    "submitit_slurm",
)  # come with hydra-joblib-launcher and hydra-submitit-launcher
# Of words and of files that cannot be composed: no such key, no such file, no YAML, interpolations without end.
NOT_COMPOSED = (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError)


@contextmanager
def hydra_errors(config_name: str, argv: Sequence[str]) -> Iterator[None]:
    """Inside, what Hydra cannot do is a ConfigError in one line."""
    try:
        yield
    except NOT_COMPOSED as error:
        if isinstance(error.__cause__, OSError):  # of the log that Hydra opens
            raise ConfigError(unwritable(error.__cause__.filename, error.__cause__)) from error
        raise ConfigError(in_one_line(error, config_name, argv)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(unwritable(error.filename or "the output directory", error)) from error


def unwritable(place: str, error: OSError) -> str:
    """What to say of a place that cannot be written."""
    remedy = "free some space, or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose"
    key = "hydra.run.dir=DIR (of a sweep: hydra.sweep.dir=DIR)"
    return f"{place}: cannot be written ({error.strerror}); {remedy} another directory by {key}"


def in_one_line(error: Exception, config_name: str, argv: Sequence[str]) -> str:
    """What is wrong with the command line `argv`, or with a file that it names, and what to write instead."""
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
    if absent := re.search(r"Additional config directory '([^']*)' not found", text):
        return f"--config-dir={absent.group(1)}: no such directory; name one that holds folders like sampler/"
    if "Primary config module" in text:
        word = next((word for word in argv if word.startswith(("--config-path", "-cp"))), "--config-path")
        return f"{word}: must be an absolute directory; files beside metvae's own are found by --config-dir=DIR"
    if function := re.search(r"while evaluating '((?:choice|range|interval|glob)\(\))'", text):
        word = next((word for word in argv if function.group(1) in word), function.group(1))
        return f"{word}: names no values; -m runs several, like seed=choice(0,1) or seed=range(0,3)"
    if several := re.search(r"Ambiguous value for argument '(.*)'", text):
        return _several(*several.group(1).split("=", 1))
    if "Config group override must be" in text:
        word = next((word for word in argv if _chooses_nothing(word)), " ".join(argv))
        if word.startswith("="):
            return f"{word}: has no key; write key=value or group=choice"
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


def _several(key: str, value: str) -> str:
    """What is said of values with commas where one is wanted."""
    if (config_dir() / key).is_dir():
        return f"{key}={value}: is several choices; -m runs each of them, {key}={value.partition(',')[0]} takes one"
    return (
        f"{key}={value}: is several values; -m runs each of them, {key}=[{value}] is a list, and one value with "
        f"commas is {_quoted(key, value)}"
    )


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
