"""A sweep whose jobs are the trials of a search: ask for as many as run side by side, run them, tell how they ended.

What is told comes from the directories of the jobs, as in any sweep: a search that was killed goes on from there.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from metvae_cli.commands.hydra_launch import Launching, launching
from metvae_cli.commands.sweep_job import SweepJob
from metvae_cli.commands.sweep_plan import SweepPlan, quoted
from metvae_cli.commands.sweep_space import SearchPlan
from metvae_cli.commands.sweep_table import standing
from metvae_cli.errors import ConfigError
from metvae_cli.paths import STUDY_FILE
from metvae_cli.tracking.run_directory import STOP_FILE

if TYPE_CHECKING:
    from metvae_cli.search.study import Proposed, Search


def open_search(plan: SweepPlan, search: SearchPlan) -> "Search":
    """The study of a sweep, new or as it was left. Raises ConfigError."""
    from metvae_cli.search.study import Search

    begun = bool(plan.job_folders())
    if begun and search.settings.storage is None and not plan.study_file().exists():
        raise ConfigError(f"sweep.resume={plan.folder}: {STUDY_FILE} is missing; put it back, or start a new sweep")
    existing = "refused" if not plan.resumed else "required" if begun else "allowed"
    return Search(plan.storage(), search.settings, search.space, existing)


def run_search(plan: SweepPlan, search: SearchPlan, study: "Search", job: SweepJob) -> None:
    """Run the trials that are missing.

    Raises:
        ConfigError: a value of a key cannot be composed
        whatever a launcher raises
    """
    with launching(job, plan.command, plan.argv()) as jobs:
        if not len(study):
            _compose_all(jobs, search)
        waiting = [trial for trial in study.begun() if not _told(plan, study, trial)]
        while not (plan.folder / STOP_FILE).exists():
            if not waiting:
                count = min(plan.batch, search.settings.n_trials - len(study))
                waiting = [study.propose() for _ in range(count)]
            batch, waiting = waiting[: plan.batch], waiting[plan.batch :]
            if not batch:
                return
            placed = [_placed(jobs, search, study, trial) for trial in batch]
            for run in _successive(placed):
                jobs.launch([_words(search, trial) for trial in run], run[0].number)
            if not all([_told(plan, study, trial) for trial in placed]):
                return  # cut off, or left to another process: the next start goes on with them


def search_lines(study: "Search", search: SearchPlan) -> list[str]:
    """What came out so far, to stand below the table."""
    best = study.best()
    if best is None:
        return []
    directory, values, value = best
    words = [word.word(values[word.key]) for word in search.space]
    lines = [f"best       {value:.3f}  {directory}", f"           {' '.join(words)}"]
    if weights := study.importances():
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in weights.items())
        lines.append(f"mattered   {shares}")
    return lines


def _compose_all(jobs: Launching, search: SearchPlan) -> None:
    """Compose a job for every choice and for both ends of every range, while nothing has been run yet."""
    firsts = {parameter.key: parameter.ends()[0] for parameter in search.space}
    for parameter in search.space:
        for value in parameter.ends():
            jobs.job(search.trial({**firsts, parameter.key: value}), 0)


def _placed(jobs: Launching, search: SearchPlan, study: "Search", trial: "Proposed") -> "Proposed":
    """The trial with its directory, which it keeps for good."""
    if trial.directory is not None:
        return trial
    directory = jobs.directory(search.trial(trial.values), trial.number)
    study.place(trial.number, directory)
    return trial._replace(directory=directory)


def _words(search: SearchPlan, trial: "Proposed") -> list[str]:
    return [*search.trial(trial.values), f"hydra.sweep.subdir={quoted(str(trial.directory))}"]


def _successive(trials: "Sequence[Proposed]") -> "Iterator[list[Proposed]]":
    """The trials in runs without a gap: a launcher numbers the jobs that it is given from a first one on."""
    run: list[Proposed] = []
    for trial in trials:
        if run and trial.number != run[-1].number + 1:
            yield run
            run = []
        run.append(trial)
    if run:
        yield run


def _told(plan: SweepPlan, study: "Search", trial: "Proposed") -> bool:
    """Tell the study how a trial ended; whether it has."""
    if trial.directory is None:
        return False
    job = standing(plan.folder / trial.directory)
    if job.status == "finished" and job.value is not None and math.isfinite(job.value):
        study.tell(trial.number, "complete", float(job.value))
    elif job.status == "pruned":
        study.tell(trial.number, "pruned")
    elif job.status in ("failed", "finished"):
        study.tell(trial.number, "failed")
    else:
        return False
    return True
