"""One evaluation: each part in turn, what it leaves written as soon as it is done."""

import csv
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metvae_cli.build import LoadedRun
from metvae_cli.commands import evaluate_diagnostics, evaluate_likelihood
from metvae_cli.commands.evaluate_request import Request
from metvae_cli.commands.evaluate_step import Outcome, PerDatum, Workplace
from metvae_cli.commands.evaluate_summary import print_evaluation
from metvae_cli.commands.own_directory import discard_events
from metvae_cli.commands.supervise import supervise
from metvae_cli.data.base import Split, split_fingerprint, spread_over
from metvae_cli.data.binarization import settled
from metvae_cli.evaluation.estimate import Estimate
from metvae_cli.evaluation.frozen import freeze
from metvae_cli.tracking.picture_files import write_pictures
from metvae_cli.tracking.run_directory import RunDirectory, write_json
from metvae_cli.tracking.tensorboard import Board, flatten
from metvae_cli.tracking.whole_file import whole
from metvae_cli.training.device import set_threads
from metvae_cli.training.interruption import Interruption

log = logging.getLogger(__name__)

# What stands beside the results in evaluation.json, and makes no curve.
_SETTINGS = (
    "data",
    "repeats",
    "num_samples",
    "num_temperatures",
    "num_chains",
    "num_leapfrog",
    "num_draws",
    "latent_dim",
)

_TABLES = ("per_datum.csv", "per_datum_simulated.csv")
_LEFT_OUT = {
    "exact": "the model is not linear and has more than two latent coordinates",
    "latent": "there are too few data",
}
_ESTIMATORS: Mapping[str, Callable[[Workplace], Outcome | None]] = {
    "importance": evaluate_likelihood.importance,
    "ais": evaluate_likelihood.ais,
    "bdmc": evaluate_likelihood.bdmc,
    "exact": evaluate_likelihood.exact,
}
_DIAGNOSTICS: Mapping[str, Callable[[Workplace], Outcome | None]] = {
    "sampler": evaluate_diagnostics.sampler,
    "latent": evaluate_diagnostics.latent,
}


def evaluate(run: LoadedRun, request: Request, config: Mapping[str, Any], folder: Path) -> float | None:
    """Evaluate into `folder`; returns the mean log-likelihood of the first estimator that gives one.

    Raises:
        ConfigError: the directory cannot be had
        Interrupted: a signal came; what was done by then is kept
        RunError: failed; the reason is in the log and the status
    """
    split = _split(run, request)
    data = {"fingerprint": split_fingerprint(split), "event_shape": list(run.dataset.event_shape)}

    def begin(directory: RunDirectory) -> None:
        _discard_earlier(folder)  # before the new start is on record: numbers of earlier weights would pass for its own
        directory.write_manifest(config, str(run.device), data)

    results, rows = supervise(
        "evaluate",
        folder,
        folder / "evaluate.log",
        begin,
        lambda interruption: _run(run, request, split, folder, interruption),
        f"evaluation.json, if one part had ended, holds what was done by then: {folder}",
    )
    print_evaluation(rows, results["warnings"], folder)
    return _headline(results["estimators"])


def _discard_earlier(folder: Path) -> None:
    """Remove the results of an earlier evaluation."""
    discard_events(folder)
    for name in ("evaluation.json", *_TABLES):
        (folder / name).unlink(missing_ok=True)


def _run(
    run: LoadedRun, request: Request, split: Split, folder: Path, interruption: Interruption
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Everything that was asked for; returns what evaluation.json holds, and the rows of the table."""
    general = request.general
    set_threads(general.threads, sum(parameter.numel() for parameter in run.model.parameters()))
    chosen = torch.arange(len(split)) if general.data is None else spread_over(len(split), general.data)
    frozen = freeze(run.model, run.device, general.precision)
    work = Workplace(run, request, frozen, split, chosen, interruption.check)
    results = _head(run, request, split, chosen)
    rows = [("data", f"{run.dataset.name}, {len(chosen)} of the {general.split} split")]
    columns: dict[str, PerDatum] = {}
    simulated: dict[str, PerDatum] = {}
    with closing(Board(folder)) as board, interruption.at_once():  # every part that is done has been written
        for group, functions in (("estimators", _ESTIMATORS), ("diagnostics", _DIAGNOSTICS)):
            for name in getattr(general, group):
                started = time.monotonic()
                interruption.check()
                outcome = functions[name](work)
                if outcome is None:
                    log.info("%s: left out, %s", name, _LEFT_OUT[name])
                    continue
                for warning in outcome.warnings:
                    log.warning("warning: %s", warning)
                seconds = round(time.monotonic() - started, 3)
                results[group][name] = {**outcome.results, "seconds": seconds}
                results["warnings"] += outcome.warnings
                columns |= outcome.columns
                simulated |= outcome.simulated
                rows += outcome.rows
                results["agreement"] = _agreement(columns)
                _write(folder, results, columns, simulated)
                _show(board, run.iteration, name, outcome)
                write_pictures(folder, board, outcome.images, run.iteration)
        rows += _agreement_rows(results["agreement"])
        board.text("evaluation", "\n".join(["| quantity | value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]))
    return results, rows


def _head(run: LoadedRun, request: Request, split: Split, chosen: Tensor) -> dict[str, Any]:
    """What evaluation.json says of what was evaluated."""
    general, dataset = request.general, run.dataset
    head: dict[str, Any] = {
        "run": str(general.run),
        "checkpoint": general.checkpoint,
        "iteration": run.iteration,
        "seed": general.seed,
        "precision": general.precision,
        "device": str(run.device),
        "data": {
            "name": dataset.name,
            "split": general.split,
            "count": len(chosen),
            "of": len(split),
            "support": dataset.support,
            "sha256": split_fingerprint(split),
        },
        "estimators": {},
        "agreement": {},
        "diagnostics": {},
        "warnings": [],
    }
    if dataset.exact_log_likelihood is not None:
        x = dataset.held_out(split, chosen.to(split.values.device))
        head["data"]["nats_of_true_process"] = dataset.exact_log_likelihood(x).mean().item()
    return head


def _split(run: LoadedRun, request: Request) -> Split:
    splits = {"test": run.dataset.test, "valid": run.dataset.valid, "train": run.dataset.train}
    if request.general.split == "train":
        return settled(run.dataset)
    return splits[request.general.split]


def _agreement(columns: Mapping[str, PerDatum]) -> dict[str, dict[str, float]]:
    """Differences of estimators on the data that both were run on, with standard errors over data."""
    names, found = [name for name in ("importance", "ais", "exact") if name in columns], {}
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            here, there = ({int(n): v for n, v in zip(*columns[name], strict=True)} for name in (second, first))
            common = [number for number in here if number in there]
            if len(common) > 1:
                differences = torch.stack([here[number] - there[number] for number in common])
                estimate = Estimate(differences[None])
                found[f"{second} - {first}"] = {
                    "nats": estimate.mean,
                    "standard_error_over_data": estimate.standard_error,
                    "data": len(common),
                }
    return found


def _agreement_rows(agreement: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    return [
        (f"{name}, on the same {found['data']} data", f"{found['nats']:+.3f} ± {found['standard_error_over_data']:.3f}")
        for name, found in agreement.items()
    ]


def _write(
    folder: Path, results: Mapping[str, Any], columns: Mapping[str, PerDatum], simulated: Mapping[str, PerDatum]
) -> None:
    write_json(folder / "evaluation.json", results)
    for name, table in zip(_TABLES, (columns, simulated), strict=True):
        if table:
            _write_columns(folder / name, table)


def _write_columns(path: Path, columns: Mapping[str, PerDatum]) -> None:
    """One row per datum; empty where a column says nothing of it."""
    cells = {name: {int(n): float(v) for n, v in zip(*column, strict=True)} for name, column in columns.items()}
    numbers = sorted({number for column in cells.values() for number in column})
    with whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["datum", *cells])
        writer.writerows([number, *(column.get(number, "") for column in cells.values())] for number in numbers)


def _show(board: Board, step: int, name: str, outcome: Outcome) -> None:
    """The numbers of one part in TensorBoard: those that were measured, not those that were asked for."""
    flat = flatten(outcome.results, f"evaluate/{name}/").items()
    measured = {key: value for key, value in flat if key.rpartition("/")[2].rpartition(".")[2] not in _SETTINGS}
    numbers = {key: float(value) for key, value in measured.items() if _is_number(value)}
    board.scalars(step, numbers)
    for column, (_, values) in {**outcome.columns, **outcome.simulated}.items():
        board.histogram(step, f"evaluate/per_datum/{column}", values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _headline(estimators: Mapping[str, Any]) -> float | None:
    return next((found["nats"] for found in estimators.values() if "nats" in found), None)
