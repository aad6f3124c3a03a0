"""Directories that `metvae sample` and `metvae evaluate` may write into: new ones, and those of their own kind."""

from collections.abc import Sequence
from pathlib import Path

from metvae_cli.commands.hydra_entry import override_value
from metvae_cli.errors import ConfigError

_COMMANDS = ("train", "infer", "sample", "evaluate")


def refuse_named_directory(command: str, argv: Sequence[str]) -> None:
    """Before anything is composed, for a directory that the command line names outright. Raises ConfigError."""
    value = override_value(argv, "hydra.run.dir")
    refuse_no_directory(value)
    if value and "${" not in value:
        refuse_directory(command, Path(value))


def refuse_no_directory(value: str | None) -> None:
    """Raise ConfigError for an empty name: files would be strewn over the working directory."""
    if value is not None and not value.strip():
        raise ConfigError("hydra.run.dir=: names no directory; say hydra.run.dir=NAME, or leave it out")


def refuse_directory(command: str, folder: Path) -> None:
    """Raise ConfigError where a directory is that of another command's run, whose files would be replaced."""
    others = [folder / f"{other}.log" for other in _COMMANDS if other != command]
    if any(path.exists() for path in (*others, folder / "checkpoints", folder / "summary.json")):
        log = folder / f"{command}.log"
        if log.exists() and not log.stat().st_size:  # Hydra has opened it by now
            log.unlink()
        raise ConfigError(f"hydra.run.dir={folder}: holds a run of another command; choose another directory")


def discard_events(folder: Path) -> None:
    """Remove the events of an earlier time, whose other files are replaced one by one."""
    for path in folder.glob("events.out.tfevents.*"):
        path.unlink()
