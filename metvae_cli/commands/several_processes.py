"""One run by several processes of this machine: start them, pass signals on, and say why they ended if one failed.

The directory and the configuration in it are there before the processes are: each reads them, and the first one keeps
manifest, status and log as a run of one process does. Where torchrun or Slurm has started the processes nothing is
started here: the first one does what it would do alone, and the others (`assist`) learn the directory from it.
"""

import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from metvae_cli.build import build_experiment
from metvae_cli.commands.hydra_entry import plugins_in
from metvae_cli.commands.stored_run import changed, log_to
from metvae_cli.commands.train_run import train
from metvae_cli.errors import ConfigError, Interrupted, Pruned, RunError
from metvae_cli.paths import discard_run
from metvae_cli.stored_config import stored_config
from metvae_cli.tracking.run_directory import read_status, run_id, write_status
from metvae_cli.tracking.run_lock import owner_is_gone
from metvae_cli.training.checkpoint import load_newest
from metvae_cli.training.interruption import requeuing_signal, stopping_signals
from metvae_cli.training.settings import TrainerSettings

_LOOK_EVERY = 0.1  # seconds
# What a process says that has lost another one, whose own words come first.
_LOST = ("Connection closed", "Connection reset", "DistBackendError", "NCCL")
_GRACE = 10.0  # seconds in which processes may end by themselves when one has failed


class Failure(NamedTuple):
    """What a process that could not go on says: its number, whether the user can mend it, why, and where."""

    rank: int
    is_usage: bool
    reason: str
    story: str


class Work(NamedTuple):
    """What each process is told. words: after `resume=`, or those of a new run that count for it; resumes: which."""

    folder: Path
    words: tuple[str, ...]
    resumes: bool
    size: int
    port: int
    quiet: bool


def launch(folder: Path, words: Sequence[str], settings: TrainerSettings, *, resumes: bool) -> float:
    """Run what stands in `folder` in several processes; returns the best validation bound.

    Args:
        folder: of a run, with its stored configuration
        words: plugins=[...] and, of a resume, changed keys
        settings: of the trainer
        resumes: whether to go on from the last checkpoint

    Raises:
        ConfigError: a process was refused what it needs
        Interrupted: a signal came; the state is saved
        RunError: a process failed or was killed; the others have been stopped
    """
    quiet = getattr(sys.stderr, "name", None) == os.devnull  # a job of a sweep that shares its terminal
    work = Work(folder, tuple(words), resumes, settings.devices, _free_port(), quiet)
    context = get_context("spawn")
    failures: SimpleQueue[Failure] = context.SimpleQueue()
    with _Forward(folder) as forward:
        with _ignored():
            started = start_processes(_process, (work, failures), settings.devices, join=False, start_method="spawn")
        assert isinstance(started, ProcessContext)
        forward.watch(started)
        killed = _wait(started)
    if owner_is_gone(folder / ".lock"):
        (folder / ".lock").unlink(missing_ok=True)  # of a first process that was killed
    said = []
    while not failures.empty():
        said.append(failures.get())
    return _result(folder, killed, said, forward.signum)


def assist(config: Mapping[str, Any], plugins: Sequence[str]) -> None:
    """Be one of the processes that torchrun or Slurm started, but for the first. Raises as `train`."""
    logging.disable(logging.ERROR)  # the first one has said it
    with suppress(Pruned):  # as the first one says
        train(build_experiment(config, plugins), config, Path())


def _process(rank: int, work: Work, failures: "SimpleQueue[Failure]") -> None:
    """What each process does: a session of its own, since signals of the terminal are passed on by the parent."""
    os.setsid()
    if (requeues := requeuing_signal()) is not None:
        signal.signal(requeues, signal.SIG_IGN)  # Slurm's word to submitit that time runs out is the parent's
    os.environ.update(
        TORCHELASTIC_RUN_ID="metvae",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        GROUP_RANK="0",
        WORLD_SIZE=str(work.size),
        LOCAL_WORLD_SIZE=str(work.size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(work.port),
    )
    try:
        with open(os.devnull, "w") as sink, suppress(Interrupted):
            if rank or work.quiet:
                with redirect_stdout(sink), redirect_stderr(sink):
                    _train(rank, work)
            else:
                _train(rank, work)
    except Exception as error:
        expected = isinstance(error, ConfigError | RunError)
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        failures.put(Failure(rank, isinstance(error, ConfigError), reason, traceback.format_exc()))
        sys.exit(1)


def _train(rank: int, work: Work) -> None:
    if rank:
        logging.disable(logging.ERROR)
    else:
        log_to(work.folder, "train.log")
    config = changed(stored_config(work.folder), [word for word in work.words if not word.startswith("plugins=")])
    experiment = build_experiment(config, plugins_in(work.words))
    content = None
    if work.resumes and not rank:
        content, notes = load_newest(work.folder / "checkpoints", run_id(work.folder))
        experiment.notes.extend(notes)
    train(experiment, config, work.folder, content, work.words)


def _wait(started: ProcessContext) -> dict[int, str]:
    """Until all have ended; returns the processes that something killed, with the signal's name."""
    while None in (codes := _codes(started)) and not any(codes):  # some go on, and none has failed
        time.sleep(_LOOK_EVERY)
    killed = {rank: signal.Signals(-code).name for rank, code in enumerate(codes) if code and code < 0}
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # what it would say is said below
    with suppress(ProcessException):
        while not started.join(grace_period=_GRACE):
            pass
    return killed


def _codes(started: ProcessContext) -> list[int | None]:
    return [process.exitcode for process in started.processes]


def _result(folder: Path, killed: Mapping[int, str], said: Sequence[Failure], signum: int | None) -> float:
    """What the run came to. Raises as `launch`."""
    status = read_status(folder)
    if status.get("status") == "interrupted" and not killed:
        raise Interrupted(signum or signal.SIGTERM)
    if not status and signum is not None:
        print("stopped before training began; nothing was saved", file=sys.stderr)
        discard_run(folder, "train", has_words=True)
    if killed and signum is None:
        rank, name = next(iter(killed.items()))
        memory = "; was there too little memory?" if name == "SIGKILL" else ""
        _fail(folder, f"process {rank} was killed by {name}{memory}", [])
    if said and signum is None:
        first = min(said, key=lambda failure: any(word in failure.story for word in _LOST))
        if first.is_usage:
            raise ConfigError(first.reason)
        if first.rank == 0 and status.get("status") == "failed":
            raise RunError(first.reason)
        _fail(folder, f"process {first.rank}: {first.reason}", said)
    if status.get("status") == "finished":
        return float(json.loads((folder / "summary.json").read_text())["val/bound"])
    raise Interrupted(signum or signal.SIGTERM)


def _fail(folder: Path, reason: str, said: Sequence[Failure]) -> None:
    """Leave word, in the log and in the status, of a failure that is not that of the first process."""
    with (folder / "train.log").open("a", encoding="utf-8") as log:
        log.write("".join(f"process {failure.rank}\n{failure.story}\n" for failure in said) + f"{reason}\n")
    write_status(folder, "failed", reason)
    raise RunError(f"{reason} (the whole story: {folder / 'train.log'})")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _ignored() -> Iterator[None]:
    """Inside, processes are started that ignore the signals of a terminal until they have handlers of their own."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in stopping_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Forward:
    """While active, signals go to the processes: the first lets them save, a second ends them at once.

    folder: of the run
    """

    def __init__(self, folder: Path) -> None:
        self.signum: int | None = None
        self._folder = folder
        self._processes: list[int] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_Forward":
        for number in stopping_signals():
            self._previous[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def watch(self, started: ProcessContext) -> None:
        """Know whom to tell."""
        self._processes = [pid for pid in started.pids() if pid is not None]
        if self.signum is not None:
            self._tell(self.signum)

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._tell(signum)

    def _tell(self, signum: int) -> None:
        if read_status(self._folder).get("status") != "running":
            signum = signal.SIGKILL  # there is nothing to be saved yet, and they would not listen
        for pid in self._processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
