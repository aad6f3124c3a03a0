"""One training run: build what the configuration says, train it, measure it, and say what came out."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metvae_cli.build import Experiment
from metvae_cli.commands.run_board import TRAINED, introduce
from metvae_cli.commands.stored_run import go_on
from metvae_cli.commands.supervise import supervise
from metvae_cli.commands.sweep_trial import is_behind, raise_if_pruned
from metvae_cli.commands.train_embedding import embed
from metvae_cli.commands.train_likelihood import log_likelihood_of_test_data, of_true_process, per_value, test_index
from metvae_cli.commands.train_summary import print_summary
from metvae_cli.data.base import Dataset, spread_over
from metvae_cli.errors import ConfigError, RunError
from metvae_cli.evaluation import pictures
from metvae_cli.evaluation.grids import is_image
from metvae_cli.evaluation.importance import ImportanceEstimate
from metvae_cli.stored_config import data_of
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.run_directory import run_id, write_json
from metvae_cli.tracking.tensorboard import FINAL, Board
from metvae_cli.tracking.tracker import RunTracker, Silence
from metvae_cli.training.checkpoint import refuse_gone_on, require_finite
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.profiling import profiled
from metvae_cli.training.ranks import is_passed_on
from metvae_cli.training.state import Tracker
from metvae_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

_PICTURED = 8


def train(
    experiment: Experiment,
    config: Mapping[str, Any],
    folder: Path,
    content: dict[str, Any] | None = None,
    words: Sequence[str] = (),
) -> float:
    """Train in `folder`, from the start or from the `content` of a checkpoint; returns the best validation bound.

    words: plugins=[...] and, of a resume, changed keys

    Raises:
        ConfigError: the directory cannot be had
        Interrupted: a signal came; the state is saved
        Pruned: the search that it is a trial of stopped it
        RunError: failed; the reason is in the run's log and status
    """
    processes = experiment.processes
    folder, content = processes.tell((folder, content))
    try:
        if processes.rank:
            return _assist(experiment, folder, content)
        return _lead(experiment, config, folder, content, words)
    finally:
        processes.leave()


def _lead(
    experiment: Experiment,
    config: Mapping[str, Any],
    folder: Path,
    content: dict[str, Any] | None,
    words: Sequence[str],
) -> float:
    """Train as the process that writes. Raises as `train`."""
    dataset = experiment.learner.dataset
    data = {"fingerprint": dataset.fingerprint(), "event_shape": list(dataset.event_shape)}
    summary = supervise(
        "train",
        folder,
        folder / "train.log",
        lambda run: run.write_manifest(config, str(experiment.device), data),
        lambda interruption: _run(experiment, config, folder, content, interruption),
        go_on("train", folder, words),
        anew=content is None,
        look_again=lambda: refuse_gone_on(folder, content),
    )
    # Only now: whether anybody reads the table does not decide how the run went.
    print_summary(summary, folder, config)
    return summary["val/bound"]


def refuse_other_data(folder: Path, dataset: Dataset) -> None:
    """Raise ConfigError unless the data are those that the run in `folder` was started with."""
    if (known := data_of(folder)) and known["fingerprint"] != dataset.fingerprint():
        raise ConfigError(
            f"resume={folder}: the data are not those that the run was started with; put them back, or start a new run"
        )


def _assist(experiment: Experiment, folder: Path, content: dict[str, Any] | None) -> float:
    """Train as a process that writes nothing. Raises as `train`."""
    with Interruption(is_passed_on=is_passed_on()) as interruption:
        trainer = make_trainer(experiment, folder, Silence(), interruption)
        if content is not None:
            restore(trainer, content)
        fit_and_test(experiment, trainer)
    return trainer.state.best_value


def make_trainer(experiment: Experiment, folder: Path, tracker: Tracker, interruption: Interruption) -> Trainer:
    """The trainer of a run."""
    learner, processes, checkpoints = experiment.learner, experiment.processes, folder / "checkpoints"
    behind = is_behind(folder) if processes.rank == 0 else None
    settings, seed = experiment.settings, experiment.seed
    trainer = Trainer(learner, settings, seed, checkpoints, tracker, interruption, processes, behind)
    trainer.state.run = run_id(folder)
    return trainer


def fit_and_test(experiment: Experiment, trainer: Trainer) -> tuple[str, ImportanceEstimate, float]:
    """Train, then `test`; why it stopped, log-likelihood, bound."""
    reason = trainer.fit()
    raise_if_pruned(reason, trainer.state)
    return reason, *test(experiment, trainer)


def test(experiment: Experiment, trainer: Trainer) -> tuple[ImportanceEstimate, float]:
    """Measure on the test data what the best validation left: log-likelihood, bound."""
    trainer.load_weights("best.pt")
    estimate = log_likelihood_of_test_data(experiment, trainer.exchange)
    held_out = experiment.learner.dataset.test
    index = test_index(held_out, experiment.settings.test_data)
    return estimate, trainer.evaluate(held_out, index)["bound"]


def _run(
    experiment: Experiment,
    config: Mapping[str, Any],
    folder: Path,
    content: dict[str, Any] | None,
    interruption: Interruption,
) -> dict[str, Any]:
    """Train, measure and write; returns what summary.json holds."""
    settings = experiment.settings
    for note in experiment.notes:
        log.warning("note: %s", note)
    state = content["state"] if content else {}
    metrics = MetricsFile(folder / "metrics.csv", state.get("log_position", 0))
    with (
        closing(Board(folder, state.get("iteration"))) as board,
        profiled(settings.profile, folder, board.profile) as each_iteration,
        RunTracker(board, metrics, pictures_of(experiment), settings.max_epochs, each_iteration) as tracker,
    ):
        trainer = make_trainer(experiment, folder, tracker, interruption)
        announce(experiment, trainer, folder)
        introduce(board, config, folder, TRAINED)
        if content is not None:
            restore(trainer, content)
        reason, estimate, test_bound = fit_and_test(experiment, trainer)
        return conclude(experiment, trainer, folder, tracker, reason, (estimate, test_bound))


def conclude(
    experiment: Experiment,
    trainer: Trainer,
    folder: Path,
    tracker: RunTracker,
    reason: str,
    tested: tuple[ImportanceEstimate, float],
) -> dict[str, Any]:
    """Draw and write what is left of a trained model; returns what summary.json holds.

    Nothing from here on can be interrupted: what a resume would draw again is drawn once.
    """
    estimate, test_bound = tested
    ends = {"test/bound": test_bound, "stopped": reason}
    summary = _summary(experiment, trainer, tracker.metrics.last(), estimate) | ends
    tracker.pictures(trainer.state.iteration, FINAL)
    embed(experiment, folder)
    tracker.board.end_session(trainer.state.iteration, {name: float(summary[name]) for name in TRAINED})
    write_json(folder / "summary.json", summary)
    return summary


def announce(experiment: Experiment, trainer: Trainer, folder: Path) -> None:
    """One line on what runs where."""
    learner = experiment.learner
    log.info(
        "%s: %d training data, %s parameters, %d Markov steps, %d samples; %s%s, %d threads; writing to %s",
        learner.dataset.name,
        len(learner.dataset.train),
        f"{sum(parameter.numel() for parameter in trainer.parameters):,}",
        learner.sampler.num_steps,
        learner.objective.num_samples,
        experiment.device,
        f" x {experiment.processes.size}" if experiment.processes.size > 1 else "",
        torch.get_num_threads(),
        folder,
    )


def refuse_other_configuration(folder: Path, trainer: Trainer, content: dict[str, Any]) -> None:
    """Raise ConfigError unless a checkpoint is one of the run's configuration, with weights that training can go on
    from. trainer: one for this alone.
    """
    if reason := _misfit(trainer, content):
        raise ConfigError(
            f"resume={folder}: the checkpoint does not fit the configuration in .hydra/config.yaml ({reason}); put "
            "back the one that the run was started with"
        )
    require_finite(trainer.modules, f"resume={folder}: last.pt", "remove it, to go on from best.pt")


def restore(trainer: Trainer, content: dict[str, Any]) -> None:
    """Go on from a checkpoint. Raises RunError where it is not one of this configuration."""
    if reason := _misfit(trainer, content):
        raise RunError(f"the checkpoint does not fit the configuration in .hydra/config.yaml ({reason})")
    if reason := trainer.stop_reason():
        log.warning("nothing left to train (stopped by %s): raise trainer.%s to go on", reason, reason)


def _misfit(trainer: Trainer, content: dict[str, Any]) -> str:
    """Why a checkpoint cannot be gone on from; empty once it has been put into the trainer."""
    try:
        trainer.restore(content)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        return str(error).splitlines()[0]
    return ""


def _summary(
    experiment: Experiment, trainer: Trainer, last_row: Mapping[str, float], test: ImportanceEstimate
) -> dict[str, Any]:
    """What summary.json holds."""
    state = trainer.state
    return {
        "train/bound": math.nan,  # replaced by the row's, unless no step of an epoch was finite
        **{name: value for name, value in last_row.items() if name.startswith(("train/", "step_size/", "val/accept"))},
        "val/bound": state.best_value,
        "test/nll": -test.mean,
        "test/nll_se": test.standard_error,
        "test/data": len(test.per_datum),
        "test/samples": experiment.settings.test_samples,
        "test/effective_samples": test.effective_samples.mean().item(),
        **per_value(experiment, test),
        **of_true_process(experiment),
        "epochs": state.epoch + state.batch / trainer.num_batches,
        "best_epoch": state.best_epoch,
        "iterations": state.iteration,
        "bad_steps": state.bad_steps,
        "seconds": state.seconds,
        "decoder_evaluations": state.evaluations,
        "parameters": sum(parameter.numel() for parameter in trainer.parameters),
    }


def pictures_of(experiment: Experiment) -> Callable[[], dict[str, Tensor]]:
    """Draws the pictures of the model as it is when called."""
    model, sampler, dataset = experiment.learner.model, experiment.learner.sampler, experiment.learner.dataset
    shown = spread_over(len(dataset.valid), _PICTURED)
    scattered = torch.arange(min(2000, len(dataset.valid)))

    def draw() -> dict[str, Tensor]:
        model.eval()
        labels = dataset.valid.labels
        points = dataset.held_out(dataset.valid, scattered)
        drawn = {
            "latent/encoder_means": pictures.latent_scatter(
                model, points, None if labels is None else labels[scattered]
            )
        }
        if is_image(dataset.event_shape):
            x = dataset.held_out(dataset.valid, shown)
            drawn["images/prior_samples"] = pictures.prior_samples(model, 64, experiment.device)
            drawn["images/reconstructions"] = pictures.reconstructions(model, sampler, x)
            if sampler.num_steps:
                drawn["images/chain"] = pictures.chain(model, sampler, x)
        return drawn

    return draw
