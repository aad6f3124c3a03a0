"""One job of a sweep, in this process or in one that a launcher started, here or on another machine.

What a job does depends on what is in its directory: a finished run is left as it is, one that was cut off after a
checkpoint is resumed, everything else begins anew.
"""

import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import metvae_cli.commands.job_name  # noqa: F401  a launcher's process, which unpickles a job, has to know ${job_name:}
from metvae_cli.commands.hydra_entry import named_plugins, output_folder, words_to_repeat
from metvae_cli.commands.orphans import job_of
from metvae_cli.commands.stored_run import discard_attempt, has_saved
from metvae_cli.commands.sweep_plan import BASIC_SWEEPER
from metvae_cli.commands.sweep_table import standing
from metvae_cli.errors import ConfigError, Interrupted, Pruned, RunError
from metvae_cli.paths import discard_run
from metvae_cli.tracking.run_directory import DONE, RunDirectory, read_status, stop_file, write_json, write_status
from metvae_cli.training.interruption import asked_to_stop, stopping_signals
from metvae_cli.training.ranks import is_assistant

log = logging.getLogger(__name__)

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class SweepJob:
    """What Hydra calls once per job; a launcher pickles it.

    Args:
        task: starts a run from a configuration
        resume: goes on with the run in a directory; None where a run has no checkpoints
        argv: the command line of the sweep
        process: host and id of the process that the sweep was started in
        threads: CPU threads for a process other than that one
        shares_terminal: whether such a process writes to the same terminal
        begun: when the sweep was; what failed since then is not run again
    """

    task: Callable[[DictConfig], Any]
    resume: Callable[[Path, Sequence[str]], Any] | None
    argv: tuple[str, ...]
    process: str
    threads: int | None
    shares_terminal: bool
    begun: str

    def __call__(self, config: DictConfig) -> Any:
        """The value of the run, which the sweeper may maximise; NaN for one that did not come to an end."""
        if this_process() == self.process:
            return self._carry_out(config, elsewhere=False)
        _settle_in(self.threads)
        with job_of(int(self.process.split()[-1])):
            return self._carry_out(config, elsewhere=True)

    def _carry_out(self, config: DictConfig, *, elsewhere: bool) -> Any:
        """What is left to do, and its value. elsewhere: in a process of a launcher."""
        folder, sys.argv = output_folder(), list(self.argv)
        status = read_status(folder)
        stop = stop_file(folder)
        if stop is not None and asked_to_stop(stop) is not None:
            if not status:
                discard_run(folder, HydraConfig.get().job.name)
            return math.nan
        if status.get("status") in DONE:
            _say(f"{folder.name}: {status['status']} already")
            return standing(folder).value
        if status.get("status") == "failed" and status.get("time", "") >= self.begun:
            return math.nan
        if is_assistant():  # one of several processes that Slurm started for this job, and not the first
            return self._assist(config)
        if holder := RunDirectory(folder).holder():
            _say(_left_to(folder, holder))
            return math.nan
        return self._attempt(config, folder, elsewhere)

    @staticmethod
    def _assist(config: DictConfig) -> float:
        from metvae_cli.commands.several_processes import assist
        from metvae_cli.plain_config import plain

        assist(plain(config), named_plugins())
        return math.nan

    def _attempt(self, config: DictConfig, folder: Path, elsewhere: bool) -> Any:
        """Run, and leave word in the directory of how it ended."""
        quiet = elsewhere and self.shares_terminal
        if quiet:
            _say(f"{folder.name}: begins")
        try:
            with _silence(quiet):
                value = self._run(config, folder)
        except Interrupted as interrupted:
            if not elsewhere:
                raise
            _say(f"{folder.name}: stopped by {interrupted}, and saved")
            return math.nan
        except Pruned as pruned:
            write_json(folder / "status.json", {**read_status(folder), "value": pruned.value})
            _say(f"{folder.name}: pruned {pruned}")
            return pruned.value
        except Exception as error:
            if isinstance(error, ConfigError) and (holder := RunDirectory(folder).holder()):
                _say(_left_to(folder, holder))  # which began it at the same time
                return math.nan
            if isinstance(error, ConfigError) and read_status(folder).get("status") in DONE:
                return standing(folder).value  # by another process, since it was looked at
            _record_failure(folder, error)
            if HydraConfig.get().sweeper.get("_target_") == BASIC_SWEEPER:
                return math.nan  # it would start no further batch of jobs after an exception
            raise
        write_json(folder / "status.json", {"status": "finished", **read_status(folder), "value": value})
        if quiet:
            _say(f"{folder.name}: finished")
        return value

    def _run(self, config: DictConfig, folder: Path) -> Any:
        if self.resume is not None and has_saved(folder):
            return self.resume(folder, words_to_repeat())
        with RunDirectory(folder):  # what another process has begun since it was looked at is not an attempt to discard
            discard_attempt(folder)
        return self.task(config)


def _left_to(folder: Path, holder: str) -> str:
    return f"{folder.name}: is left to another process that runs it ({holder})"


def this_process() -> str:
    """Host and process id."""
    return f"{socket.gethostname()} {os.getpid()}"


def _record_failure(folder: Path, error: Exception) -> None:
    """One line, on the terminal and in the run's own log, and the status, if the run has not written it itself."""
    known = isinstance(error, RunError) and read_status(folder).get("status") == "failed"
    if not known:
        expected = isinstance(error, ConfigError | RunError)
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # of a full disk: what went wrong is said all the same
            write_status(folder, "failed", reason)
        if not expected:
            log.exception("the run failed")
    log.error("%s failed: %s", folder.name, " ".join(read_status(folder).get("reason", str(error)).split()))


def _settle_in(threads: int | None) -> None:
    """Make a process of a launcher one that shares the machine and outlives a Ctrl-C until its job has saved."""
    # A terminal sends Ctrl-C to every process, and so does Slurm with what it is asked to send; idle ones would die of
    # it and take the running ones with them. A job that runs has handlers of its own.
    for number in {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2} & set(stopping_signals()):
        signal.signal(number, signal.SIG_IGN)
    for name in _THREADS if threads else ():
        given = os.environ.get(name, "")
        os.environ[name] = str(min(int(given), threads or 1) if given.isdigit() else threads)


@contextmanager
def _silence(wanted: bool) -> Iterator[None]:
    """Print nothing, if wanted: bars and tables of several jobs on one terminal could not be told apart."""
    if not wanted:
        yield
        return
    with open(os.devnull, "w") as sink, redirect_stdout(sink), redirect_stderr(sink):
        yield


def _say(line: str) -> None:
    """A line that belongs on the terminal, and into no run's log."""
    print(line, file=sys.stderr, flush=True)
