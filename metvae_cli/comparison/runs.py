"""Runs on disk: found below directories and read from a few small files each, without torch or a YAML parser."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metvae_cli.comparison.foreign import mapping, read_object
from metvae_cli.comparison.hydra_files import Composition, read_composition, sweep_words
from metvae_cli.errors import ConfigError
from metvae_cli.schema import shown
from metvae_cli.tracking.run_lock import owner_is_gone

FINISHED = "finished"
PRUNED = "pruned"  # stopped by the search that it is a trial of: its numbers are not those of a whole run
# Folders in which no run lies: what a run leaves in its own, sometimes thousands of files.
_NOT_ENTERED = {"checkpoints", "images", "pictures", ".hydra", ".git", "__pycache__"}


@dataclass(frozen=True)
class Run:
    """One run, or job of a sweep.

    Args:
        folder: its directory, as it was found
        state: finished, pruned, failed, interrupted, running, killed (says running, but its process is gone), damaged,
            not started
        reason: why, where it is not finished; one line
        seed: None where the run ended before it wrote its configuration
        settings: dotted key -> value as one types it, of the resolved configuration
        choices: group -> the name chosen from it, as far as it is known
        typed: keys that stood on the command line
        metrics: what it measured, by name; empty unless it is finished
        data: fingerprint of its data; empty if unknown
        time: of its end, ISO 8601
    """

    folder: Path
    state: str
    reason: str = ""
    seed: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    typed: frozenset[str] = frozenset()
    metrics: Mapping[str, float] = field(default_factory=dict)
    data: str = ""
    time: str = ""

    @property
    def configured(self) -> bool:
        """Whether it is known what was to be run."""
        return bool(self.settings)


@dataclass(frozen=True)
class Evaluation:
    """What `metvae evaluate` measured of a run.

    Args:
        run: directory of the run, resolved
        count: of the data
        time: of its beginning, when it had read the weights, ISO 8601; empty if unknown
        metrics: numbers by name, like importance/nats; of another split or checkpoint than test and best behind that,
            like train/importance/nats
    """

    run: Path
    count: int
    time: str
    metrics: Mapping[str, float]


def find(folders: Sequence[Path]) -> tuple[list[Run], list[Evaluation]]:
    """Every run and every evaluation below the folders, each once, in the order of their paths.

    Raises:
        ConfigError: there is no such directory
    """
    runs: list[Run] = []
    evaluations: list[Evaluation] = []
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such directory; name a run, a sweep or a folder of them")
        for place, names in _places(folder):
            resolved = place.resolve()
            if resolved in seen:
                continue
            seen.add(resolved)
            if "multirun.yaml" in names:
                runs += _not_started(place)
            elif "evaluation.json" in names:
                evaluations += _read_evaluation(place)
            else:
                runs += _read_run(place, names)
    return runs, evaluations


def _places(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """The directories of runs and evaluations, with the names of the files in each."""
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if name not in _NOT_ENTERED)
        if not {"status.json", "manifest.json", "multirun.yaml"}.isdisjoint(names):
            yield Path(place), set(names)


def _read_run(folder: Path, names: set[str]) -> list[Run]:
    """The run in a directory; none where it only holds the runs of several methods or seeds, or no run of ours."""
    damages: list[str] = []
    manifest = read_object(folder / "manifest.json", damages) if "manifest.json" in names else {}
    status = read_object(folder / "status.json", damages) if "status.json" in names else {}
    config = mapping(manifest, "config")
    if manifest.get("config") and not config:
        damages.append("manifest.json holds no configuration")
    if config.get("methods") or "run" in config:  # `infer methods=[...]`; a sample or an evaluation without result
        return []
    replicas = mapping(config, "trainer").get("replicas")
    if isinstance(replicas, int) and replicas > 1:  # the runs of its seeds are below
        return []
    state, reason = _state(folder, status)
    if not manifest and "sample.log" in names:  # pictures of a run
        return []
    if not manifest and not damages:
        return [Run(folder, state, f"{_typed_job(folder)}{reason}")]
    metrics: Mapping[str, float] = {}
    if state == FINISHED and not damages:
        summary = read_object(folder / "summary.json", damages)
        metrics = _with_derived(_numbers(summary))
    if damages:
        state, reason, metrics = "damaged", "; ".join(damages), {}
    composition = _composition(folder)
    return [
        Run(
            folder,
            state,
            reason,
            seed if isinstance(seed := manifest.get("seed"), int) else None,
            dict(_flat(config)),
            composition.choices,
            composition.typed,
            metrics,
            str(mapping(manifest, "data").get("fingerprint", "")),
            str(status.get("time", "")),
        )
    ]


def _state(folder: Path, status: Mapping[str, Any]) -> tuple[str, str]:
    """How a run stands, and why."""
    state, reason = str(status.get("status", "")), " ".join(str(status.get("reason") or "").split())
    if not state:
        return "damaged", "status.json is missing"
    if state == "running" and owner_is_gone(folder / ".lock"):
        return "killed", f"says running since {str(status.get('time', ''))[:19]}, but no process does"
    return state, reason


def _not_started(sweep: Path) -> list[Run]:
    """The jobs of a sweep that have no directory: it was stopped, or has not come to them."""
    begun = {_job_number(folder) for folder in sweep.iterdir()}
    words = enumerate(sweep_words(sweep))
    return [Run(sweep / str(job), "not started", " ".join(told)) for job, told in words if job not in begun]


def _job_number(folder: Path) -> int | None:
    """The number of a job, which the name of its directory is or begins with, as in 03_seed=1; None of others."""
    number = folder.name.partition("_")[0]
    return int(number) if number.isdecimal() and number.isascii() else None


def _typed_job(folder: Path) -> str:
    """The words of a job that ended before it wrote them, to stand before its reason; empty if unknown."""
    words = sweep_words(folder.parent)
    job = _job_number(folder)
    if job is not None and job < len(words):
        return " ".join(words[job]) + ": "
    return ""


def _composition(folder: Path) -> Composition:
    """What was chosen for a run, from its own files or, for one of several methods, from its place."""
    found = read_composition(folder)
    if found.choices:
        return found
    methods = mapping(read_object(folder.parent / "manifest.json", []), "config").get("methods")
    if isinstance(methods, list) and folder.name in methods:
        return Composition({"experiment": folder.name}, frozenset({"experiment"}))
    return found


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys with their values as one types them."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", f"[{','.join(shown(entry) for entry in value)}]"
        else:
            yield f"{prefix}{key}", shown(value)


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value for name, value in content.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _with_derived(metrics: dict[str, float]) -> dict[str, float]:
    """The same with the log-likelihood under its own name and sign."""
    if "test/nll" in metrics:
        return {**metrics, "test/log_likelihood": -metrics["test/nll"]}
    return metrics


def _read_evaluation(folder: Path) -> list[Evaluation]:
    """The evaluation in a directory; none where it cannot be read."""
    content = read_object(folder / "evaluation.json", [])
    if not isinstance(content.get("run"), str):
        return []
    manifest = read_object(folder / "manifest.json", [])
    estimators, data = mapping(content, "estimators"), mapping(content, "data")
    unusual = [str(data.get("split", "test")), str(content.get("checkpoint", "best"))]
    before = "".join(f"{word}/" for word in unusual if word not in ("test", "best"))
    metrics = {
        f"{before}{estimator}/{name}": value
        for estimator in estimators
        for name, value in _numbers(mapping(estimators, estimator)).items()
    }
    place = Path(str(manifest.get("directory", ".")), content["run"]).resolve()
    count = data.get("count")
    return [Evaluation(place, count if isinstance(count, int) else 0, _last_start(manifest), metrics)]


def _last_start(manifest: Mapping[str, Any]) -> str:
    starts = manifest.get("starts")
    last = starts[-1] if isinstance(starts, list) and starts else None
    return str(last.get("time", "")) if isinstance(last, dict) else ""


def with_evaluations(runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> tuple[list[Run], int, int]:
    """The runs with the numbers of their evaluations; how many belong to none, and how many are of earlier weights.

    Of several evaluations that of the most data counts, of as many the latest. Those that began before a run's last end
    do not: it was gone on with since.
    """
    ends = {run.folder.resolve(): run.time for run in runs}
    current = [one for one in evaluations if one.time >= ends.get(one.run, "")]
    measured: dict[Path, dict[str, float]] = {}
    for evaluation in sorted(current, key=lambda evaluation: (evaluation.count, evaluation.time)):
        measured.setdefault(evaluation.run, {}).update(evaluation.metrics)
    joined, known = [], set()
    for run in runs:
        resolved = run.folder.resolve()
        known.add(resolved)
        metrics = {**run.metrics, **measured.get(resolved, {})} if run.state == FINISHED else run.metrics
        joined.append(Run(**{**vars(run), "metrics": metrics}))
    lost = sum(evaluation.run not in known for evaluation in evaluations)
    return joined, lost, len(evaluations) - len(current)
