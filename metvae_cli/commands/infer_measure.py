"""What `metvae infer` measures and draws, of a trained sampler and of the long chains of its kernels."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metvae_cli.build_inference import InferenceRun
from metvae_cli.evaluation import density_pictures as pictures
from metvae_cli.evaluation.inference import (
    approximate,
    chain_path,
    describe_approximation,
    describe_chains,
    long_chains,
)
from metvae_cli.evaluation.long_chains import can_run_long
from metvae_cli.evaluation.walk import record_walk
from metvae_cli.samplers.assembly import make_adaptations, step_sizes
from metvae_cli.tracking.picture_files import write_pictures
from metvae_cli.tracking.progress import progress
from metvae_cli.tracking.tensorboard import FINAL, Board
from metvae_cli.tracking.whole_file import whole
from metvae_cli.training.device import fork_rng
from metvae_cli.training.interruption import Interruption

_EXACT_SEED = 2_345_678


class Result(NamedTuple):
    """summary: what summary.json holds. draws: those of the trained sampler, or else of the plain chains, (N, D)."""

    summary: dict[str, Any]
    draws: Tensor

    @property
    def score(self) -> float:
        """The bound, or of a plain chain its effective size per evaluation."""
        return self.summary.get("bound", self.summary.get("chains/effective_size_per_evaluation", math.nan))


class Measured(NamedTuple):
    """Numbers of summary.json, draws (N, D) by the titles of their pictures, the one that counts last, and images."""

    numbers: dict[str, Any]
    draws: dict[str, Tensor]
    images: dict[str, Tensor]


def measure(
    run: InferenceRun, folder: Path, interruption: Interruption, board: Board, trained: Mapping[str, Any]
) -> Result:
    """All numbers, draws and pictures of what there is now, written into `folder`; draws from the global stream.

    trained: how training went, for summary.json
    """
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
    write_pictures(folder, board, images, trained.get("iterations", 0), FINAL)
    best = [part.draws[name] for part in parts for name in list(part.draws)[-1:]]
    return Result(summary, best[0] if best else torch.empty(0, target.dim))


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
    _save(folder / "samples.npy", found.draws)
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
    total = settings.warm_up + settings.chain_draws * settings.thin
    with progress("long chains", total, interruption.check) as between:
        chains = long_chains(run.target, run.model, sampler, settings, adaptations, between)
    numbers: dict[str, Any] = describe_chains(chains, run.target, exact)
    sampler.eval()
    numbers |= {f"chains/step_size_{k + 1}": size().mean().item() for k, size in enumerate(step_sizes(sampler))}
    by_chain = chains.by_chain[:, :, 0].cpu()
    _save(folder / "chains.npy", by_chain)
    images = {}
    if settings.walk:
        start = run.target.spread_out(1)[0].to(sampler.scale)
        walk = record_walk(sampler, chain_path(run.model, sampler), start, settings.walk)
        images["walk"] = pictures.walk_picture(run.target, walk)
    return Measured(numbers, {"long chains": by_chain.flatten(0, 1)}, images)


def _save(path: Path, values: Tensor) -> None:
    with whole(path) as temporary, temporary.open("wb") as file:  # given a name, NumPy would add .npy to it
        np.save(file, values.numpy())
