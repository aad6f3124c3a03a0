"""A run that is there already: its configuration with other values, and its log."""

import logging.config
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from metvae_cli.commands.hydra_errors import NOT_COMPOSED
from metvae_cli.comparison.foreign import mapping
from metvae_cli.errors import ConfigError
from metvae_cli.paths import config_dir
from metvae_cli.schema import did_you_mean
from metvae_cli.tracking.run_directory import RunDirectory, read_manifest


def changed(config: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """The stored configuration with other values of keys that it has. changes: words like trainer.max_epochs=3.

    Raises:
        ConfigError: one cannot be read, or names no key
    """
    result = dict(config)
    for group, given in _read(changes).items():
        for key in given:
            if key not in config[group]:
                known = [f"{group}.{name}" for name in config[group]]
                raise ConfigError(f"{group}.{key}: unknown key{did_you_mean(f'{group}.{key}', known)}")
        result[group] = {**config[group], **given}
        if "max_epochs" in given and config["optimizer"].get("schedule") == "cosine":
            raise ConfigError(
                "trainer.max_epochs: is the length of the cosine schedule and cannot be changed on a resume"
            )
    return result


def _read(changes: list[str]) -> dict[str, Any]:
    """Words as nested keys."""
    for word in changes:
        try:
            OmegaConf.to_container(OmegaConf.from_dotlist([word]), resolve=True)
        except NOT_COMPOSED as error:
            raise ConfigError(f"{word}: is not of the form key=value ({str(error).splitlines()[0]})") from None
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist(changes), resolve=True))


def go_on(command: str, folder: Path, words: Sequence[str]) -> str:
    """What to type to go on with a run: the words that this start was given count for the next one only if repeated."""
    return f"go on with: {shlex.join(['metvae', command, f'resume={folder}', *words])}"


def has_saved(folder: Path) -> bool:
    """Whether a run, or that of one of its seeds, has left a checkpoint that a resume may go on from."""
    return any([*folder.glob("checkpoints/*.pt"), *folder.glob("seed_*/checkpoints/*.pt")])


def is_cut_off(folder: Path) -> bool:
    """Whether a run was cut off before it saved anything, so that a resume begins anew."""
    # A run saves before its first row and its end: without them a checkpoint is not there yet, else it was taken away.
    later = [folder / "metrics.csv", folder / "summary.json", *folder.glob("seed_*/metrics.csv")]
    return not has_saved(folder) and not any(path.exists() for path in later)


def discard_attempt(folder: Path) -> None:
    """Remove what would stand in the way of a job that is run anew; its log and its manifest are added to.

    Of directories in it those of its own methods go, which its manifest names: others may be runs of the user's.
    """
    (folder / "status.json").unlink(missing_ok=True)
    for events in folder.glob("events.out.tfevents.*"):
        events.unlink()
    (folder / "projector_config.pbtxt").unlink(missing_ok=True)
    methods = mapping(read_manifest(folder), "config").get("methods")
    for place in [path.parent for path in folder.glob("*/.hydra")]:
        if isinstance(methods, list) and place.name in methods:
            shutil.rmtree(place)


def refuse_running(folder: Path) -> None:
    """Raise ConfigError where another process has the run, before its files are looked at."""
    if holder := RunDirectory(folder).holder():
        raise ConfigError(f"resume={folder}: is in use by another run ({holder}); wait until it has ended, or stop it")


def log_to(folder: Path, name: str) -> None:
    """The logging that Hydra sets up for a new run. Raises ConfigError where its file cannot be written."""
    settings = OmegaConf.load(config_dir() / "hydra" / "job_logging" / "metvae.yaml")
    OmegaConf.update(settings, "handlers.file.filename", str(folder / name))
    try:
        logging.config.dictConfig(cast(dict[str, Any], OmegaConf.to_container(settings)))
    except ValueError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise ConfigError(f"resume={folder}: {name} cannot be written ({error.__cause__.strerror})") from error
