"""What is kept of a study's runs: small JSON in `docs/results`, from which its table can be made again.

A record has the run's words and seed, the commit, machine and threads, and of `summary.json` and `evaluation.json`
the numbers that tables show.
"""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.study_plan import Study

RECORDS = Path(__file__).parent.parent / "docs" / "results"
_OF_SUMMARY = (
    "iterations",
    "epochs",
    "seconds",
    "decoder_evaluations",
    "parameters",
    "val/bound",
    "test/bound",
    "bad_steps",
)
_OF_ESTIMATE = (
    "nats",
    "standard_error_over_data",
    "standard_error_over_repeats",
    "data",
    "num_samples",
    "num_temperatures",
    "num_chains",
    "effective_samples",
    "pareto_k",
    "share_of_data_above_0.7",
    "seconds",
)
Record = dict[str, Any]


def records_of(study: Study) -> list[Record]:
    """What is kept; records of rows that the study no longer has are left out."""
    path = _path(study)
    known: list[Record] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [one for one in known if one["row"] in study.rows]


def keep(study: Study, record: Record) -> None:
    """Add a record, in place of an older one of the same row and seed. One line each, so that changes can be read."""
    others = [one for one in records_of(study) if (one["row"], one["seed"]) != (record["row"], record["seed"])]
    order = list(study.rows)
    ordered = sorted([*others, record], key=lambda one: (order.index(one["row"]), one["seed"]))
    path = _path(study)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(one) for one in ordered) + "\n]\n", encoding="utf-8")


def is_kept(study: Study, row: str, seed: int) -> bool:
    """Whether there is a record of this run, made by the words that the study has now."""
    words = study.words(row)
    return any((one["row"], one["seed"], one["words"]) == (row, seed, words) for one in records_of(study))


def read_record(study: Study, row: str, seed: int, run: Path, evaluation: Path) -> Record:
    """The record of a run that has been trained and evaluated."""
    summary, manifest, found = (
        json.loads(path.read_text(encoding="utf-8"))
        for path in (run / "summary.json", run / "manifest.json", evaluation / "evaluation.json")
    )
    return {
        "row": row,
        "seed": seed,
        "words": study.words(row),
        "evaluate": list(study.evaluate),
        "commit": (manifest["git"] or {}).get("commit", "")[:10],
        "dirty": (manifest["git"] or {}).get("dirty"),
        "torch": manifest["versions"]["torch"],
        "device": manifest["device"],
        "machine": machine(),
        "summary": _chosen(summary, _OF_SUMMARY),
        "data": found["data"]["sha256"][:16],
        "estimators": {name: _chosen(values, _OF_ESTIMATE) for name, values in found["estimators"].items()},
        "agreement": found["agreement"],
    }


def machine() -> str:
    """Processor and number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores"


def _chosen(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Numbers as they are, but short: seven digits are more than a table shows."""
    return {
        key: float(f"{values[key]:.7g}") if isinstance(values[key], float) else values[key]
        for key in keys
        if key in values
    }


def _path(study: Study) -> Path:
    return RECORDS / f"{study.name}.json"
