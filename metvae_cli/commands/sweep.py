"""A sweep: several jobs of which none depends on another's fate.

The table at the end, and what a sweep that goes on has left to do, come from the files in the directories of the jobs:
neither depends on which launcher ran them, or on this process having lived through all of them.
"""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from metvae_cli.commands.hydra_entry import run_with_hydra, stamped
from metvae_cli.commands.sweep_job import SweepJob, this_process
from metvae_cli.commands.sweep_plan import SweepPlan, plan_sweep
from metvae_cli.commands.sweep_search import open_search, run_search, search_lines
from metvae_cli.commands.sweep_table import print_sweep, standing
from metvae_cli.errors import ConfigError, Interrupted, RunError
from metvae_cli.paths import discard_sweep
from metvae_cli.tracking.run_directory import DONE, STOP_FILE, RunDirectory, now
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.ranks import rank_and_size

if TYPE_CHECKING:
    from metvae_cli.search.study import Search

Task = Callable[[DictConfig], Any]
Resume = Callable[[Path, Sequence[str]], Any]


def run_sweep(command: str, argv: Sequence[str], words: Sequence[str], task: Task, resume: Resume | None) -> int:
    """Run all jobs, then print the table; returns the exit status.

    Args:
        command: train, infer, ...
        argv: the words after it; words: the same, options first
        task, resume: as of `run_or_sweep`

    Raises:
        ConfigError: cannot be done; nothing is left behind
        RunError: the launcher of the sweep failed
        Interrupted: a signal came; everything is saved
    """
    if rank_and_size()[1] > 1:
        raise ConfigError("-m: was started as one of several processes; leave torchrun out, each job starts its own")
    with stamped():
        return _sweep(plan_sweep(command, words), ("metvae", command, *argv), task, resume)


def _sweep(plan: SweepPlan, argv: tuple[str, ...], task: Task, resume: Resume | None) -> int:
    """All jobs, then the table; returns the exit status."""
    job = SweepJob(task, resume, argv, this_process(), plan.threads, plan.shares_terminal, now())
    stop = plan.folder / STOP_FILE
    try:
        with RunDirectory(plan.folder, "hydra.sweep.dir"), _Stopper(stop, bool(plan.processes)) as stopper:
            stop.unlink(missing_ok=True)  # of a sweep that was killed while it stopped
            plan.record()
            study = plan.search and open_search(plan, plan.search)
            try:
                trouble = _launch(plan, job, study)
            finally:
                unfinished = _report(plan, study)
            stop.unlink(missing_ok=True)
            stopper.check()
            if trouble:
                raise trouble
            return 1 if unfinished else 0
    finally:
        if not plan.resumed:
            discard_sweep(plan.folder)


def _launch(plan: SweepPlan, job: SweepJob, study: "Search | None") -> RunError | None:
    """Let Hydra run the jobs; returns what kept it from running them all.

    A process that something kills takes joblib's others with it: those jobs go on in new ones, as long as that brings
    any further job to its end.

    Raises:
        ConfigError: no job could be started
    """
    ended = -1
    while True:
        trouble = _launch_once(plan, job, study)
        before, ended = ended, sum(standing(folder).status in (*DONE, "failed") for folder in plan.job_folders())
        cause = trouble.__cause__ if trouble else None
        if not isinstance(cause, BrokenExecutor) or ended == before or (plan.folder / STOP_FILE).exists():
            return trouble
        print("a job's process was killed, and others with it: they go on in new ones", file=sys.stderr, flush=True)


def _launch_once(plan: SweepPlan, job: SweepJob, study: "Search | None") -> RunError | None:
    """Let Hydra run the jobs; returns what kept it from running them all.

    Raises:
        ConfigError: no job could be started
    """
    try:
        if plan.search is not None and study is not None:
            run_search(plan, plan.search, study, job)
        else:
            run_with_hydra(job, plan.command, plan.argv())
    except BrokenPipeError:
        raise
    except ConfigError as error:
        if not plan.job_folders():
            raise
        return RunError(str(error))
    except Exception as error:
        what = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        trouble = RunError(f"not every job could be run: {what}")
        trouble.__cause__ = error
        return trouble
    return None


def _report(plan: SweepPlan, study: "Search | None") -> int:
    """Print how the jobs stand, if any has begun; returns how many have not come to a good end."""
    jobs = [standing(folder) for folder in plan.job_folders()]
    missing = max(0, plan.jobs - len(jobs)) if plan.jobs else 0
    lost = [job for job in jobs if job.status not in DONE]
    # A trial that failed is a result of its search, and not run again.
    left = missing + sum(job.status != "failed" or study is None for job in lost)
    if jobs:
        notes = search_lines(study, plan.search) if study is not None and plan.search is not None else []
        print_sweep(plan.command, plan.folder, jobs, missing, plan.to_go_on() if left else "", notes)
    return missing + len(lost)


class _Stopper(Interruption):
    """While active, the first signal ends the sweep when what runs has saved, and the second at once.

    Args:
        file: tells jobs in other processes
        elsewhere: whether jobs are in other processes; a job in this one has a handler of its own while it runs
    """

    def __init__(self, file: Path, elsewhere: bool) -> None:
        super().__init__()
        self._file = file
        self._elsewhere = elsewhere

    def _note(self, signum: int, frame: FrameType | None) -> None:
        super()._note(signum, frame)
        if not self._elsewhere:
            raise Interrupted(signum)
        self._file.write_text(str(signum))
        # No print: the signal may have come in the middle of one.
        os.write(
            sys.__stderr__.fileno() if sys.__stderr__ else 2, b"stopping: waits until the running jobs have saved\n"
        )
