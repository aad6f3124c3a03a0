"""One training run: build what the configuration says, train it, measure it, and say what came out."""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from metvae_cli.build import Experiment
from metvae_cli.commands.run_board import TRAINED, introduce
from metvae_cli.commands.train_embedding import embed
from metvae_cli.commands.train_summary import print_summary
from metvae_cli.data.base import Split, spread_over
from metvae_cli.errors import Interrupted, RunError
from metvae_cli.evaluation import pictures
from metvae_cli.evaluation.estimate import bits_per_dimension
from metvae_cli.evaluation.frozen import batches, freeze
from metvae_cli.evaluation.grids import is_image
from metvae_cli.evaluation.importance import ImportanceEstimate, importance_sampling
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.run_directory import RunDirectory, stop_file, write_json
from metvae_cli.tracking.tensorboard import FINAL, Board
from metvae_cli.tracking.tracker import RunTracker
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.profiling import profiled
from metvae_cli.training.trainer import Trainer

T = TypeVar("T")

log = logging.getLogger(__name__)

_TEST_SEED = 7_654_321
_PICTURED = 8


def train(
    experiment: Experiment, config: Mapping[str, Any], folder: Path, content: dict[str, Any] | None = None
) -> float:
    """Train in `folder`, from the start or from the `content` of a checkpoint; returns the best validation bound.

    Raises:
        ConfigError: the directory cannot be had
        Interrupted: a signal came; the state is saved
        RunError: failed; the reason is in the run's log and status
    """
    dataset = experiment.learner.dataset
    data = {"fingerprint": dataset.fingerprint(), "event_shape": list(dataset.event_shape)}
    summary = supervise(
        folder,
        folder / "train.log",
        lambda run: run.write_manifest(config, str(experiment.device), data),
        lambda interruption: _run(experiment, config, folder, content, interruption),
        f"go on with: metvae train resume={folder}",
    )
    # Only now: whether anybody reads the table does not decide how the run went.
    print_summary(summary, folder, config)
    return summary["val/bound"]


def supervise(
    folder: Path,
    log_file: Path,
    begin: Callable[[RunDirectory], None],
    work: Callable[[Interruption], T],
    after_interrupt: str,
) -> T:
    """Do the work of a run in its directory, with its manifest and its status kept.

    Args:
        folder: the run's directory
        log_file: where its log goes
        begin: writes the manifest
        work: given what to ask between iterations whether to stop
        after_interrupt: what to say to a user who stopped it

    Raises:
        ConfigError: the directory cannot be had
        Interrupted: a signal came
        RunError: failed; the reason is in the run's log and status
    """
    with RunDirectory(folder) as run, Interruption(stop_file(folder)) as interruption:
        begin(run)
        run.write_status("running")
        try:
            result = work(interruption)
        except Interrupted as interrupted:
            run.write_status("interrupted", str(interrupted))
            log.warning("interrupted; %s", after_interrupt)
            raise
        except KeyboardInterrupt:
            run.write_status("interrupted", "second signal; what was written by then is kept")
            raise
        except Exception as error:
            run.write_status("failed", f"{type(error).__name__}: {error}")
            log.exception("the run failed")
            raise RunError(f"{error} (the whole story: {log_file})") from error
        run.write_status("finished")
    return result


def _run(
    experiment: Experiment,
    config: Mapping[str, Any],
    folder: Path,
    content: dict[str, Any] | None,
    interruption: Interruption,
) -> dict[str, Any]:
    """Train, measure and write; returns what summary.json holds."""
    learner, settings = experiment.learner, experiment.settings
    for note in experiment.notes:
        log.warning("note: %s", note)
    state = content["state"] if content else {}
    metrics = MetricsFile(folder / "metrics.csv", state.get("log_position", 0))
    with (
        closing(Board(folder, state.get("iteration"))) as board,
        profiled(settings.profile, folder, board.profile) as each_iteration,
        RunTracker(board, metrics, _pictures(experiment), settings.max_epochs, each_iteration) as tracker,
    ):
        trainer = Trainer(learner, settings, experiment.seed, folder / "checkpoints", tracker, interruption)
        _announce(experiment, trainer, folder)
        introduce(board, config, folder, TRAINED)
        if content is not None:
            restore(trainer, content)
        reason = trainer.fit()
        trainer.load_weights("best.pt")
        test = test_log_likelihood(experiment, interruption)
        held_out = learner.dataset.test
        test_bound = trainer.evaluate(held_out, _test_index(held_out, settings.test_data))["bound"]
        summary = _summary(experiment, trainer, metrics.last(), test) | {"test/bound": test_bound, "stopped": reason}
        # Nothing from here on can be interrupted: what a resume would draw again is drawn once.
        tracker.pictures(trainer.state.iteration, FINAL)
        embed(experiment, folder)
        board.end_session(trainer.state.iteration, {name: float(summary[name]) for name in TRAINED})
        write_json(folder / "summary.json", summary)
    return summary


def _announce(experiment: Experiment, trainer: Trainer, folder: Path) -> None:
    """One line on what runs where."""
    learner = experiment.learner
    log.info(
        "%s: %d training data, %s parameters, %d Markov steps, %d samples; %s, %d threads; writing to %s",
        learner.dataset.name,
        len(learner.dataset.train),
        f"{sum(parameter.numel() for parameter in trainer.parameters):,}",
        learner.sampler.num_steps,
        learner.objective.num_samples,
        experiment.device,
        torch.get_num_threads(),
        folder,
    )


def restore(trainer: Trainer, content: dict[str, Any]) -> None:
    """Go on from a checkpoint. Raises RunError where it is not one of this configuration."""
    try:
        trainer.restore(content)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"the checkpoint does not fit the configuration in .hydra/config.yaml ({reason})") from error
    if reason := trainer.stop_reason():
        log.warning("nothing left to train (stopped by %s): raise trainer.%s to go on", reason, reason)


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
        **_bits_per_dimension(experiment, test),
        **_exact(experiment),
        "epochs": state.epoch + state.batch / trainer.num_batches,
        "best_epoch": state.best_epoch,
        "iterations": state.iteration,
        "bad_steps": state.bad_steps,
        "seconds": state.seconds,
        "decoder_evaluations": state.evaluations,
        "parameters": sum(parameter.numel() for parameter in trainer.parameters),
    }


def test_log_likelihood(experiment: Experiment, interruption: Interruption) -> ImportanceEstimate:
    """Importance-sampled log-likelihood of the test data: what `metvae evaluate` gives for as many samples."""
    learner, settings = experiment.learner, experiment.settings
    test = learner.dataset.test
    return importance_sampling(
        freeze(learner.model, experiment.device),
        batches(learner.dataset, test, _test_index(test, settings.test_data)),
        settings.test_samples,
        between=lambda done: interruption.check(),
    )


def _test_index(test: Split, limit: int | None) -> Tensor:
    if limit is None or limit >= len(test):
        return torch.arange(len(test))
    return torch.randperm(len(test), generator=torch.Generator().manual_seed(_TEST_SEED))[:limit]


def _bits_per_dimension(experiment: Experiment, test: ImportanceEstimate) -> dict[str, float]:
    """The test number per value of a datum, for discrete values and for dequantized grey levels."""
    dataset = experiment.learner.dataset
    if not (dataset.dequantize or experiment.learner.model.likelihood.is_discrete):
        return {}
    size = math.prod(dataset.event_shape)
    return {"test/bits_per_dimension": bits_per_dimension(test.mean, size, dequantized=dataset.dequantize)}


def _exact(experiment: Experiment) -> dict[str, float]:
    """The test log-likelihood under the process that made the data, where it is known."""
    dataset = experiment.learner.dataset
    if dataset.exact_log_likelihood is None:
        return {}
    index = _test_index(dataset.test, experiment.settings.test_data)
    return {
        "test/nll_of_true_process": -dataset.exact_log_likelihood(dataset.held_out(dataset.test, index)).mean().item()
    }


def _pictures(experiment: Experiment) -> Callable[[], dict[str, Tensor]]:
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
