"""What every run has: a directory that is its own, a manifest, a status, and a log that says why it failed."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from metvae_cli.commands.failure import told
from metvae_cli.commands.stored_run import discard_attempt
from metvae_cli.errors import Interrupted, Pruned, RunError
from metvae_cli.tracking.run_directory import RunDirectory, read_manifest, stop_file
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.ranks import is_passed_on

T = TypeVar("T")

log = logging.getLogger(__name__)


def supervise(
    command: str,
    folder: Path,
    log_file: Path,
    begin: Callable[[RunDirectory], None],
    work: Callable[[Interruption], T],
    afterwards: str,
    *,
    anew: bool = False,
    look_again: Callable[[], None] = lambda: None,
) -> T:
    """Do the work of a run in its directory, with its manifest and its status kept.

    Args:
        command: train, infer or evaluate
        folder: the run's directory
        log_file: where its log goes
        begin: writes the manifest
        work: given what to ask between iterations whether to stop
        afterwards: what to say to a user who stopped it, or whose disk was full
        anew: whether what an attempt has left that was cut off before its first checkpoint is to go
        look_again: called once the directory is ours, before anything is written; may raise ConfigError

    Raises:
        ConfigError: the directory cannot be had
        Interrupted: a signal came
        Pruned: its search stopped it
        RunError: failed; the reason is in the run's log and status
    """
    with RunDirectory(folder) as run, Interruption(stop_file(folder), is_passed_on=is_passed_on()) as interruption:
        try:
            look_again()
            if anew and read_manifest(folder):
                discard_attempt(folder)
            begin(run)
            run.write_status("running")
        except OSError as error:
            raise RunError(told(error, command, folder) or str(error)) from error
        try:
            result = work(interruption)
            run.write_status("finished")
        except Interrupted as interrupted:
            run.write_status("interrupted", str(interrupted))
            log.warning("interrupted; %s", afterwards)
            raise
        except KeyboardInterrupt:
            run.write_status("interrupted", "second signal; what was written by then is kept")
            raise
        except Pruned as pruned:
            run.write_status("pruned", str(pruned))
            raise
        except Exception as error:
            reason = told(error, command, folder, afterwards)
            with suppress(OSError):  # of a full disk: what went wrong is said all the same
                run.write_status("failed", reason or f"{type(error).__name__}: {error}")
            log.exception("the run failed%s", f": {reason}" if reason else "")
            raise RunError(f"{reason or error} (the whole story: {log_file})") from error
    return result
