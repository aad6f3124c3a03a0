"""One approximation of a density: train what is to be trained, measure it, and say what came out."""

import copy
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metvae_cli.build_inference import InferenceRun, can_run_long
from metvae_cli.commands.infer_summary import print_comparison, print_inference
from metvae_cli.commands.train_run import describe, restore, supervise
from metvae_cli.errors import RunError
from metvae_cli.evaluation import density_pictures as pictures
from metvae_cli.evaluation.inference import (
    approximate,
    chain_path,
    describe_approximation,
    describe_chains,
    long_chains,
)
from metvae_cli.evaluation.walk import record_walk
from metvae_cli.models.inference import Inference
from metvae_cli.samplers.assembly import make_adaptations, step_sizes
from metvae_cli.tracking.console import progress
from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.picture_files import write_pictures
from metvae_cli.tracking.run_directory import write_json
from metvae_cli.tracking.tensorboard import Board
from metvae_cli.tracking.tracker import RunTracker
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.state import Learner
from metvae_cli.training.trainer import Trainer, fork_rng

log = logging.getLogger(__name__)

_EXACT_SEED = 2_345_678
_MEASURE_SEED = 7_654_321
_PICTURED = 2000


class Result(NamedTuple):
    """summary: what summary.json holds. draws: those of the trained sampler, or else of the plain chains, (N, D)."""

    summary: dict[str, Any]
    draws: Tensor

    @property
    def score(self) -> float:
        """The bound, or of a plain chain its effective size per evaluation."""
        return self.summary.get("bound", self.summary.get("chains/effective_size_per_evaluation", math.nan))


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
) -> Result:
    """Approximate in `folder`, from the start or from the `content` of a checkpoint.

    log_file: where the log goes, if it is not `infer.log` in the folder

    Raises:
        ConfigError: the directory cannot be had
        Interrupted: a signal came; the state of training is saved
        RunError: failed; the reason is in the run's log and status
    """
    again = f"go on with: metvae infer resume={folder}" if run.learner else "a plain chain starts anew"
    result = supervise(
        folder,
        log_file or folder / "infer.log",
        lambda directory: directory.write_manifest(config, str(run.device), {}),
        lambda interruption: _run(run, config, folder, content, interruption),
        again,
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

    device = config["trainer"]["device"]
    again = "what is finished stays; start the others anew"
    supervise(folder, log_file, lambda directory: directory.write_manifest(config, device, {}), work, again)
    print_comparison({name: result.summary for name, result in results.items()}, folder)
    if failures:
        raise RunError("; ".join(failures))
    return max(result.score for result in results.values())


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
        if content is None:
            describe(board, config, run.sampler.num_steps, ("log_target", "log_initial"))
        trained = {} if run.learner is None else _train(run, run.learner, folder, content, interruption, board)
        with fork_rng(_MEASURE_SEED):
            result = _measure(run, folder, interruption, board, trained)
        step = trained.get("iterations", 0)
        numbers = {f"final/{name}": float(value) for name, value in result.summary.items() if _is_number(value)}
        board.hyperparameters(config, numbers, step)
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
    with RunTracker(board, metrics, _training_pictures(run, learner), run.settings.max_epochs) as tracker:
        trainer = Trainer(learner, run.settings, run.spine.seed, folder / "checkpoints", tracker, interruption)
        log.info(
            "%s parameters, %d Markov steps, %d samples; %s, %d threads; writing to %s",
            f"{sum(parameter.numel() for parameter in trainer.parameters):,}",
            learner.sampler.num_steps,
            learner.objective.num_samples,
            run.device,
            torch.get_num_threads(),
            folder,
        )
        if content is not None:
            restore(trainer, content)
        reason = trainer.fit()
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


def _measure(
    run: InferenceRun, folder: Path, interruption: Interruption, board: Board, trained: Mapping[str, Any]
) -> Result:
    """All numbers, draws and pictures of what there is now."""
    target = run.target
    with fork_rng(_EXACT_SEED):
        exact = target.sample(run.evaluation.draws)
    summary: dict[str, Any] = {"dim": target.dim, **trained}
    summary |= {} if target.modes is None else {"modes": len(target.modes.centres)}
    parts = [_measure_sampler(run, folder, interruption, exact), _measure_chains(run, folder, interruption, exact)]
    draws: dict[str, Tensor] = {}
    images: dict[str, Tensor] = {}
    for part in parts:
        summary, draws, images = summary | part.numbers, draws | part.draws, images | part.images
    if draws:
        shown = draws if exact is None else {"exact draws": exact, **draws}
        beside_density = draws if target.dim == 2 else shown
        images["density"] = pictures.histograms(target, beside_density)
        images["samples"] = pictures.dots(target, shown)
    write_pictures(folder, board, images, trained.get("iterations", 0))
    best = [part.draws[name] for part in parts for name in list(part.draws)[-1:]]
    return Result(summary, best[0] if best else torch.empty(0, target.dim))


class Measured(NamedTuple):
    """Numbers of summary.json, draws (N, D) by the titles of their pictures, the one that counts last, and images."""

    numbers: dict[str, Any]
    draws: dict[str, Tensor]
    images: dict[str, Tensor]


def _measure_sampler(run: InferenceRun, folder: Path, interruption: Interruption, exact: Tensor | None) -> Measured:
    """Bound, log Z and draws of what was trained; nothing where nothing was."""
    if run.learner is None:
        return Measured({}, {}, {})
    found = approximate(
        run.learner.objective,
        run.model,
        run.sampler,
        run.model.blank(run.spine.batch_size),
        run.evaluation.draws,
        lambda done: interruption.check(),
    )
    np.save(folder / "samples.npy", found.draws.numpy())
    draws = {"start of the chain, $q_0$": found.initial, "end of the chain, $q_K$": found.draws}
    if run.sampler.num_steps == 0:
        draws = {"learned, $q_0$": found.draws}
    return Measured(describe_approximation(found, run.target, exact), draws, {})


def _measure_chains(run: InferenceRun, folder: Path, interruption: Interruption, exact: Tensor | None) -> Measured:
    """Long chains of the kernels, and one that is drawn move by move; nothing where they cannot go on and on."""
    settings = run.evaluation
    if not (can_run_long(run.sampler) and settings.chains):
        return Measured({}, {}, {})
    sampler = copy.deepcopy(run.sampler)  # the warm-up changes step sizes
    adaptations = make_adaptations(sampler, run.target_accept)
    with progress("long chains", settings.warm_up + settings.chain_draws * settings.thin) as advance:

        def between(done: int) -> None:
            advance(done)
            interruption.check()

        chains = long_chains(run.target, run.model, sampler, settings, adaptations, between)
    numbers: dict[str, Any] = describe_chains(chains, run.target, exact)
    sampler.eval()
    numbers |= {f"chains/step_size_{k + 1}": size().mean().item() for k, size in enumerate(step_sizes(sampler))}
    by_chain = chains.by_chain[:, :, 0].cpu()
    np.save(folder / "chains.npy", by_chain.numpy())
    images = {}
    if settings.walk:
        start = run.target.spread_out(1)[0].to(sampler.scale)
        walk = record_walk(sampler, chain_path(run.model, sampler), start, settings.walk)
        images["walk"] = pictures.walk_picture(run.target, walk)
    return Measured(numbers, {"long chains": by_chain.flatten(0, 1)}, images)


def _training_pictures(run: InferenceRun, learner: Learner[Inference]) -> Callable[[], dict[str, Tensor]]:
    """Draws what the sampler makes as it is when called."""

    def draw() -> dict[str, Tensor]:
        blank = run.model.blank(run.spine.batch_size)
        found = approximate(learner.objective, run.model, run.sampler, blank, _PICTURED)
        return {"images/density": pictures.histograms(run.target, {"end of the chain": found.draws})}

    return draw


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
