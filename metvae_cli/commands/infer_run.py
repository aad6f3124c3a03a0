"""One approximation of a density: train what is to be trained, measure it, and say what came out."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor

from metvae_cli.build_inference import InferenceRun
from metvae_cli.commands.infer_measure import Result, measure
from metvae_cli.commands.infer_summary import print_comparison, print_inference
from metvae_cli.commands.run_board import INFERRED, introduce
from metvae_cli.commands.stored_run import go_on
from metvae_cli.commands.supervise import supervise
from metvae_cli.commands.sweep_trial import is_behind, raise_if_pruned
from metvae_cli.commands.train_run import refuse_other_configuration, restore
from metvae_cli.errors import RunError
from metvae_cli.evaluation import density_pictures as pictures
from metvae_cli.evaluation.inference import approximate
from metvae_cli.models.inference import Inference
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.picture_files import write_pictures
from metvae_cli.tracking.run_directory import RunDirectory, run_id, write_json
from metvae_cli.tracking.tensorboard import Board
from metvae_cli.tracking.tracker import RunTracker, Silence
from metvae_cli.tracking.whole_file import whole
from metvae_cli.training.checkpoint import refuse_gone_on
from metvae_cli.training.device import fork_rng
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.profiling import profiled
from metvae_cli.training.state import Learner
from metvae_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

_MEASURE_SEED = 7_654_321
_PICTURED = 2000


class Method(NamedTuple):
    """One of several runs. config: its own; build: makes it anew, with its random streams set."""

    config: Mapping[str, Any]
    build: Callable[[], InferenceRun]


def infer(
    run: InferenceRun,
    config: Mapping[str, Any],
    folder: Path,
    content: dict[str, Any] | None = None,
    log_file: Path | None = None,
    words: Sequence[str] = (),
) -> Result:
    """Approximate in `folder`, from the start or from the `content` of a checkpoint.

    log_file: where the log goes, if it is not `infer.log` in the folder
    words: plugins=[...] and, of a resume, changed keys

    Raises:
        ConfigError: the directory cannot be had
        Interrupted: a signal came; the state of training is saved
        Pruned: the search that it is a trial of stopped it
        RunError: failed; the reason is in the run's log and status
    """
    again = go_on("infer", folder, words) if run.learner else "a plain chain starts anew"
    result = supervise(
        "infer",
        folder,
        log_file or folder / "infer.log",
        lambda directory: directory.write_manifest(config, str(run.device), {}),
        lambda interruption: _run(run, config, folder, content, interruption),
        again,
        anew=content is None,
        look_again=lambda: refuse_gone_on(folder, content),
    )
    print_inference(result.summary, folder, config)
    return result


def infer_side_by_side(methods: Mapping[str, Method], config: Mapping[str, Any], folder: Path) -> float:
    """Each method in a directory of its own below `folder`, and one picture and one table of all; the best score.

    Each gives what it would give alone.

    Raises: as `infer`; of methods that failed only after the others are done
    """
    results: dict[str, Result] = {}
    failures: list[str] = []
    log_file = folder / "infer.log"

    def work(interruption: Interruption) -> None:
        target = None
        for name, method in methods.items():
            interruption.check()
            log.info("---- %s", name)
            run = method.build()
            target = target or run.target
            try:
                results[name] = infer(run, method.config, folder / name, log_file=log_file)
            except RunError as error:
                failures.append(f"{name}: {error}")
        draws = {_title(name, result): result.draws for name, result in results.items() if len(result.draws)}
        if target is not None and draws:
            with closing(Board(folder)) as board:
                images = {"methods": pictures.histograms(target, draws), "samples": pictures.dots(target, draws)}
                write_pictures(folder, board, images)
        write_json(folder / "summary.json", {name: result.summary for name, result in results.items()})
        if failures:
            raise RunError("; ".join(failures))

    def begin(directory: RunDirectory) -> None:
        directory.write_manifest(config, config["trainer"]["device"], {})
        for name, method in methods.items():
            stored = folder / name / ".hydra"
            stored.mkdir(parents=True, exist_ok=True)
            with whole(stored / "config.yaml") as temporary:
                OmegaConf.save(OmegaConf.create(dict(method.config)), temporary)

    again = "what is finished stays; start the others anew"
    try:
        supervise("infer", folder, log_file, begin, work, again)
    except RunError:
        if not failures:
            raise
    print_comparison({name: result.summary for name, result in results.items()}, folder)
    if failures:
        raise RunError("; ".join(failures))
    return max(result.score for result in results.values())


def refuse_other_checkpoint(run: InferenceRun, folder: Path, content: dict[str, Any]) -> None:
    """Raise ConfigError unless the checkpoint that is to be gone on from is one of the run's configuration."""
    if run.learner is not None:
        silent = Trainer(run.learner, run.settings, run.spine.seed, folder, Silence(), Interruption())
        refuse_other_configuration(folder, silent, content)


def _title(name: str, result: Result) -> str:
    modes = result.summary.get("samples/modes_found", result.summary.get("chains/modes_found"))
    bound = result.summary.get("bound")
    said = [f"bound {bound:.2f}"] if bound is not None else []
    said += [f"{modes} modes"] if modes is not None else []
    return f"{name.removeprefix('infer_')}\n{', '.join(said)}".strip()


def _run(
    run: InferenceRun,
    config: Mapping[str, Any],
    folder: Path,
    content: dict[str, Any] | None,
    interruption: Interruption,
) -> Result:
    """Train if there is something to train, measure, draw and write."""
    for note in run.notes:
        log.warning("note: %s", note)
    state = content["state"] if content else {}
    with closing(Board(folder, state.get("iteration"))) as board:
        introduce(board, config, folder, INFERRED)
        trained = {} if run.learner is None else _train(run, run.learner, folder, content, interruption, board)
        with fork_rng(_MEASURE_SEED + run.spine.seed), interruption.at_once():  # a resume measures anew
            result = measure(run, folder, interruption, board, trained)
        step = trained.get("iterations", 0)
        board.end_session(step, {name: float(value) for name, value in result.summary.items() if _is_number(value)})
    write_json(folder / "summary.json", result.summary)
    return result


def _train(
    run: InferenceRun,
    learner: Learner[Inference],
    folder: Path,
    content: dict[str, Any] | None,
    interruption: Interruption,
    board: Board,
) -> dict[str, Any]:
    """Train, and put the best weights into model and sampler; returns how it went."""
    metrics = MetricsFile(folder / "metrics.csv", content["state"]["log_position"] if content else 0)
    settings, draw = run.settings, _training_pictures(run, learner)
    with (
        profiled(settings.profile, folder, board.profile) as each_iteration,
        RunTracker(board, metrics, draw, settings.max_epochs, each_iteration) as tracker,
    ):
        checkpoints, behind = folder / "checkpoints", is_behind(folder)
        trainer = Trainer(learner, settings, run.spine.seed, checkpoints, tracker, interruption, None, behind)
        trainer.state.run = run_id(folder)
        _announce(run, learner, trainer, folder)
        if content is not None:
            restore(trainer, content)
        reason = trainer.fit()
        raise_if_pruned(reason, trainer.state)
        trainer.load_weights("best.pt")
    state, last = trainer.state, metrics.last()
    return {
        "val/bound": state.best_value,
        "best_epoch": state.best_epoch,
        **{name: value for name, value in last.items() if name.startswith(("step_size/", "val/accept", "val/moved"))},
        "epochs": state.epoch + state.batch / trainer.num_batches,
        "iterations": state.iteration,
        "bad_steps": state.bad_steps,
        "seconds": state.seconds,
        "training_evaluations": state.evaluations,
        "parameters": sum(parameter.numel() for parameter in trainer.parameters),
        "stopped": reason,
    }


def _announce(run: InferenceRun, learner: Learner[Inference], trainer: Trainer, folder: Path) -> None:
    """One line on what runs where."""
    log.info(
        "%s parameters, %d Markov steps, %d samples; %s, %d threads; writing to %s",
        f"{sum(parameter.numel() for parameter in trainer.parameters):,}",
        learner.sampler.num_steps,
        learner.objective.num_samples,
        run.device,
        torch.get_num_threads(),
        folder,
    )


def _training_pictures(run: InferenceRun, learner: Learner[Inference]) -> Callable[[], dict[str, Tensor]]:
    """Draws what the sampler makes as it is when called."""

    def draw() -> dict[str, Tensor]:
        blank = run.model.blank(run.spine.batch_size)
        found = approximate(learner.objective, run.model, run.sampler, blank, _PICTURED)
        return {"images/density": pictures.histograms(run.target, {"end of the chain": found.draws})}

    return draw


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
