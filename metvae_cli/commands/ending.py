"""What ends a command on the screen: a table, and lines to read or type next, with paths as one types them here."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_NARROWEST = 110  # of what is read by a file or another program


def print_ending(table: Table, lines: Sequence[str]) -> None:
    """Print on standard output.

    Raises:
        BrokenPipeError: nobody reads it
    """
    if sys.stdout is None:
        return
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _NARROWEST)
    try:
        console.print(table)
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    except SystemExit:  # rich's answer to a closed pipe
        raise BrokenPipeError from None


def from_here(folder: Path) -> Path:
    """A folder as one would type it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def look(logs: Path) -> str:
    """The line that shows curves and pictures: of all runs, if they are in outputs."""
    everything = "outputs" if logs.parts[:1] == ("outputs",) else str(logs)
    return f"look       tensorboard --logdir {shlex.quote(everything)}"


def go_on(command: str, here: Path, stopped: str, config: Mapping[str, Any], moved: str = "") -> list[str]:
    """The line that lets a run go on past the limit that stopped it; none at the end of a cosine schedule.

    moved: a word more, as a path that is another from here
    """
    if stopped == "max_epochs" and config["optimizer"].get("schedule") == "cosine":
        return []
    words = [shlex.quote(f"resume={here}"), f"trainer.{stopped}=N", moved, plugins_word(config)]
    return [f"go on      metvae {command} {' '.join(filter(None, words))}"]


def plugins_word(config: Mapping[str, Any]) -> str:
    """What a command must be told of the user's own modules; empty without any."""
    return f"plugins=[{','.join(config['plugins'])}]" if config.get("plugins") else ""
