"""`metvae train trainer.replicas=R`: the runs of R seeds, trained side by side, each with a directory of its own.

What is left in `seed_S` is what `metvae train seed=S` leaves: it can be evaluated, compared and gone on with alone.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from metvae_cli.build import Experiment, build_experiment
from metvae_cli.commands.replica_files import Voices, seed_folder, store_own_words
from metvae_cli.commands.replicas_summary import print_replicas, summarized
from metvae_cli.commands.run_board import TRAINED, introduce
from metvae_cli.commands.stored_run import discard_attempt, go_on
from metvae_cli.commands.supervise import supervise
from metvae_cli.commands.train_run import (
    announce,
    conclude,
    make_trainer,
    pictures_of,
    refuse_other_configuration,
    refuse_other_data,
    restore,
    test,
)
from metvae_cli.errors import ConfigError, Interrupted, RunError
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.run_directory import RunDirectory, read_status, run_id, write_json, write_status
from metvae_cli.tracking.tensorboard import Board
from metvae_cli.tracking.tracker import RunTracker, Silence
from metvae_cli.training.checkpoint import load_newest, refuse_gone_on
from metvae_cli.training.device import SMALL, set_threads
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.replicas import Replica, Replicas, rehearse
from metvae_cli.training.state import State, limit_reached
from metvae_cli.training.streams import Stream
from metvae_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

_FEWEST = 4  # seeds of a small network that take less time side by side than one after another


class SeedRun(NamedTuple):
    """The run of one seed. content: of the checkpoint that it goes on from, or None."""

    experiment: Experiment
    stream: Stream
    config: Mapping[str, Any]
    folder: Path
    content: dict[str, Any] | None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        if self.content is None or read_status(self.folder).get("status") != "finished":
            return False
        state = State(**self.content["state"])
        return bool(limit_reached(self.experiment.settings, state, state.seconds))


class _Open(NamedTuple):
    """A run whose files are open."""

    run: SeedRun
    replica: Replica
    tracker: RunTracker


def prepared(
    config: Mapping[str, Any], plugins: Sequence[str], folder: Path, *, resumes: bool
) -> Callable[[Sequence[str]], float]:
    """What trains the seeds of a configuration in `folder`, once it is known that it can; given the words as `train`.

    Raises:
        ConfigError: it cannot
    """
    replicas = config["trainer"]["replicas"]
    runs: list[SeedRun] = []
    for seed in range(config["seed"], config["seed"] + replicas):
        own = {**config, "seed": seed, "trainer": {**config["trainer"], "replicas": 1}}
        experiment = build_experiment(own, plugins, runs[0].experiment.learner.dataset if runs else None)
        stream, place = Stream(), seed_folder(folder, seed)
        if resumes:
            refuse_other_data(place, experiment.learner.dataset)
        content = _saved(experiment, place, runs[0].experiment.notes if runs else experiment.notes) if resumes else None
        runs.append(SeedRun(experiment, stream, own, place, content))
    learner, settings = runs[0].experiment.learner, runs[0].experiment.settings
    size = sum(parameter.numel() for part in (learner.model, learner.sampler) for parameter in part.parameters())
    set_threads(settings.threads, replicas * size)
    if runs[0].experiment.device.type == "cpu":
        runs[0].experiment.notes.extend(_slowness(replicas, config["seed"], size))
    _refuse_unlike(runs)
    return partial(_train, runs, config, folder)


def _slowness(replicas: int, seed: int, size: int) -> list[str]:
    """What is said on a CPU of seeds that are no faster side by side than one after another. size: parameters of one"""
    if size > SMALL:
        reason = f"{size:,} parameters keep a CPU busy by themselves; side by side their seeds take as long as"
    elif replicas < _FEWEST:
        reason = f"on a CPU side by side pays from {_FEWEST} or 5 seeds on; fewer are trained sooner"
    else:
        return []
    return [f"trainer.replicas={replicas}: {reason} one after another, by {_one_by_one(replicas, seed)}"]


def _one_by_one(replicas: int, seed: int) -> str:
    """The words that train the same seeds one after another."""
    return f'trainer.replicas=1 -m "seed=range({seed},{seed + replicas})"'


def _saved(experiment: Experiment, folder: Path, notes: list[str]) -> dict[str, Any] | None:
    """The checkpoint that the run of a seed goes on from; None where it has none. notes: are added to."""
    checkpoints = folder / "checkpoints"
    if not any(checkpoints.glob("*.pt")):
        return None
    content, said = load_newest(checkpoints, run_id(folder))
    refuse_other_configuration(folder, make_trainer(experiment, folder, Silence(), Interruption()), content)
    notes.extend(said)
    return content


def _refuse_unlike(runs: Sequence[SeedRun]) -> None:
    """Raise ConfigError unless the runs side by side compute what each computes alone."""
    silent = [Replica(make_trainer(run.experiment, run.folder, Silence(), Interruption()), run.stream) for run in runs]
    if reason := rehearse(silent):
        seed = runs[0].config["seed"]
        raise ConfigError(
            f"trainer.replicas={len(runs)}: this configuration cannot be trained side by side ({reason}); "
            f"train its seeds one by one: {_one_by_one(len(runs), seed)}"
        )


def _train(runs: Sequence[SeedRun], config: Mapping[str, Any], folder: Path, words: Sequence[str]) -> float:
    """Train all; returns the mean of the best validation bounds.

    Raises:
        ConfigError: a directory cannot be had
        Interrupted: a signal came; the states are saved
        RunError: some failed; the others are done
    """
    dataset = runs[0].experiment.learner.dataset
    data = {"fingerprint": dataset.fingerprint(), "event_shape": list(dataset.event_shape)}
    device = str(runs[0].experiment.device)
    failures: dict[int, str] = {}

    def begin(directory: RunDirectory) -> None:
        directory.write_manifest(config, device, data)
        for run in runs:
            if not run.is_done:  # a finished run is left as it is
                store_own_words(folder, run.config["seed"])

    def work(interruption: Interruption) -> dict[int, dict[str, Any]]:
        found, failed = _work(runs, folder, data, interruption)
        failures.update(failed)
        write_json(folder / "summary.json", summarized(found))
        if failed:
            raise RunError(_said_once(failed))
        return found

    try:
        with ExitStack() as claims:
            found = supervise(
                "train",
                folder,
                folder / "train.log",
                begin,
                work,
                go_on("train", folder, words),
                look_again=lambda: _claim(runs, claims),
            )
    except RunError:
        if not failures:
            raise
        raise RunError(f"{_said_once(failures)} (the whole story: train.log of that seed in {folder})") from None
    print_replicas(found, folder, config)
    return summarized(found)["val/bound"]


def _claim(runs: Sequence[SeedRun], claims: ExitStack) -> None:
    """Claim the directories of all runs with something left to do. Raises ConfigError as `refuse_gone_on` too."""
    for run in runs:
        if not run.is_done:
            claims.enter_context(RunDirectory(run.folder))
        refuse_gone_on(run.folder, run.content)


def _said_once(failures: Mapping[int, str]) -> str:
    """What failed, with the seeds to which each reason applies."""
    seeds = {reason: [seed for seed, own in failures.items() if own == reason] for reason in failures.values()}
    return "; ".join(
        f"seed{'s' * (len(own) > 1)} {', '.join(map(str, own))}: {reason}" for reason, own in seeds.items()
    )


def _work(
    runs: Sequence[SeedRun], folder: Path, data: Mapping[str, Any], interruption: Interruption
) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """Train and measure; returns what summary.json of each seed holds, and why seeds failed."""
    for note in runs[0].experiment.notes:
        log.warning("note: %s", note)
    found = {run.config["seed"]: _read_summary(run.folder) for run in runs if run.is_done}
    left = [run for run in runs if not run.is_done]
    failures: dict[int, str] = {}
    with ExitStack() as stack:
        voices = stack.enter_context(Voices(folder, [run.config["seed"] for run in left]))
        opened = []
        for run in left:
            speaks = partial(voices.of, run.config["seed"])
            with speaks():
                opened.append(stack.enter_context(_opened(run, data, interruption, speaks, bar=not opened)))
        learner = runs[0].experiment.learner
        seeds = f"{len(left)} seed{'s' * (len(left) != 1)}"
        log.info("%s: %s side by side; writing to %s", learner.dataset.name, seeds, folder)
        ends = Replicas([entry.replica for entry in opened], interruption).fit()
        stop = next((end for end in ends if isinstance(end, Interrupted)), None)
        for entry, end in zip(opened, ends, strict=True):
            seed = entry.run.config["seed"]
            if isinstance(end, Exception):
                failures[seed] = str(end)
                with entry.replica.voice():
                    log.error("the run failed", exc_info=end)
                write_status(entry.run.folder, "failed", f"{type(end).__name__}: {end}")
            elif isinstance(end, str) and stop is None:
                found[seed] = _measured(entry, end)
        if stop is not None:
            raise stop
    return dict(sorted(found.items())), failures


def _read_summary(folder: Path) -> dict[str, Any]:
    """What summary.json of a seed holds; null stands for what was no finite number."""
    content = json.loads((folder / "summary.json").read_text())
    return {name: math.nan if value is None else value for name, value in content.items()}


def _measured(entry: _Open, reason: str) -> dict[str, Any]:
    """Measure what training left, and write it; returns what summary.json holds."""
    (experiment, stream, config, folder, _), (trainer, _, voice), tracker = entry
    log.info("seed %d: stopped by %s; measures on test data", config["seed"], reason)
    with voice(), stream.current():
        summary = conclude(experiment, trainer, folder, tracker, reason, test(experiment, trainer))
    RunDirectory(folder).write_status("finished")
    return summary


@contextmanager
def _opened(
    run: SeedRun,
    data: Mapping[str, Any],
    interruption: Interruption,
    voice: Callable[[], AbstractContextManager[None]],
    *,
    bar: bool,
) -> Iterator[_Open]:
    """The files of a run whose directory is ours, with its trainer where it began or stopped."""
    experiment, folder, content = run.experiment, run.folder, run.content
    state = content["state"] if content else {}
    directory = RunDirectory(folder)
    with _status_kept(directory):
        if content is None:  # of an earlier attempt, which was cut off before its first checkpoint
            discard_attempt(folder)
        directory.write_manifest(run.config, str(experiment.device), data)
        directory.write_status("running")
        metrics = MetricsFile(folder / "metrics.csv", state.get("log_position", 0))
        with (
            closing(Board(folder, state.get("iteration"))) as board,
            RunTracker(board, metrics, pictures_of(experiment), experiment.settings.max_epochs, bar=bar) as tracker,
        ):
            trainer = make_trainer(experiment, folder, tracker, interruption)
            announce(experiment, trainer, folder)
            introduce(board, run.config, folder, TRAINED)
            if content is not None:
                _go_on_from(trainer, run.stream, content)
            yield _Open(run, Replica(trainer, run.stream, voice), tracker)


def _go_on_from(trainer: Trainer, stream: Stream, content: dict[str, Any]) -> None:
    restore(trainer, content)
    stream.take()


@contextmanager
def _status_kept(directory: RunDirectory) -> Iterator[None]:
    """Inside, a run that is not over when all are stopped says why it is not."""
    reason = "the runs beside it failed"
    try:
        yield
    except Interrupted as interrupted:
        reason = str(interrupted)
        raise
    except KeyboardInterrupt:
        reason = "second signal; what was written by then is kept"
        raise
    finally:
        if read_status(directory.path).get("status") == "running":
            directory.write_status("interrupted", reason)
