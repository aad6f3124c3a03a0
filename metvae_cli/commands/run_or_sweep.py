"""A command as its words say: its help, once, or with -m in a sweep, whose files are imported for that alone."""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from metvae_cli.commands.help_text import help_text, is_plain
from metvae_cli.commands.hydra_entry import options_first, override_value, run_once

_SWEEPER = "hydra/sweeper"


def run_or_sweep(
    command: str,
    argv: Sequence[str],
    task: Callable[[DictConfig], Any],
    resume: Callable[[Path, Sequence[str]], Any] | None = None,
) -> int:
    """Run a command as the words say; returns the exit status.

    Args:
        command: train, infer, ...
        argv: the words after it
        task: starts a run from a configuration
        resume: goes on with the run in a directory; None where a run has no checkpoints

    Raises:
        ConfigError: cannot be done; nothing is left behind
        RunError: a single run failed, or the launcher of a sweep did
        Interrupted: a signal came; everything is saved
    """
    words = options_first(argv, command)
    if is_plain(words):
        print(help_text(command, words))
        return 0
    given = get_args_parser().parse_args(words)
    if not _looks_only(given) and _is_sweep(given, words):
        from metvae_cli.commands.sweep import run_sweep

        return run_sweep(command, argv, words, task, resume)
    if not _looks_only(given) and (sweeper := override_value(words, _SWEEPER)) not in (None, "basic"):
        print(f"metvae: {_SWEEPER}={sweeper}: nothing is searched without -m; one run is made", file=sys.stderr)
    run_once(task, command, words)
    return 0


def _is_sweep(given: Namespace, words: Sequence[str]) -> bool:
    resumed = override_value(words, "sweep.resume") not in (None, "null")
    return given.multirun or resumed or (override_value(words, "hydra.mode") or "").upper() == "MULTIRUN"


def _looks_only(given: Namespace) -> bool:
    """Whether nothing is to run, as with --help or --cfg."""
    return any((given.help, given.hydra_help, given.cfg, given.info, given.shell_completion))
