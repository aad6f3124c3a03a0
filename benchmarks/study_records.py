"""What is kept of a study's runs: small JSON in `docs/results`, from which its table can be made again.

A record has the run's words and seed, the commit, machine and threads, of `summary.json` and `evaluation.json` the
numbers that tables show, and of `metrics.csv` a thin curve of the bound against what it cost.
"""

import csv
import json
import math
import os
import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.processor import processor
from benchmarks.study_plan import Study, Unit
from metvae_cli.tracking.run_lock import one_at_a_time
from metvae_cli.tracking.whole_file import whole

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
_OF_CURVE = ("decoder_evaluations", "seconds", "val/bound")
_CURVE_POINTS = 16
_ERROR = "standard_error_over_data"
Record = dict[str, Any]


def unit_of(record: Record) -> Unit:
    """Which run a record is of."""
    return Unit(record.get("setting", ""), record["row"], record["seed"])


def likelihood(record: Record) -> tuple[float, float] | None:
    """What rows are compared by: an estimate of log p(x), and its standard error over data; None without any."""
    best = record["estimators"].get(compared_by(record))
    return None if best is None else (best["nats"], best[_ERROR])


def compared_by(record: Record) -> str:
    """The estimator that rows are compared by.

    The exact one, if it is of all the data; that by annealing, whose data may be some, but are the same for all rows of
    a study; or that by importance sampling.
    """
    own, exact = (record["estimators"].get(name) for name in ("importance", "exact"))
    if exact is not None and own is not None and exact["data"] == own["data"]:
        return "exact"
    return "ais" if "ais" in record["estimators"] else "importance"


def of_cell(records: Sequence[Record], setting: str, row: str) -> list[Record]:
    """The records of a row in a setting."""
    return [one for one in records if unit_of(one)[:2] == (setting, row)]


def difference(records: Sequence[Record], others: Sequence[Record]) -> tuple[float, float] | None:
    """Mean of a row less another over the seeds and data that both have, and its standard error over data.

    Data are the same for all seeds, so that the error is one of data alone, however many seeds there are.
    """
    known = {one["seed"]: one["per_datum"] for one in others if "per_datum" in one}
    pairs = [(one["per_datum"], known[one["seed"]]) for one in records if "per_datum" in one and one["seed"] in known]
    if not pairs:
        return None
    by_datum = [statistics.fmean(a[i] - b[i] for a, b in pairs) for i in range(len(pairs[0][0]))]
    return statistics.fmean(by_datum), statistics.stdev(by_datum) / math.sqrt(len(by_datum))


def by_difference(record: Record) -> tuple[float, float] | None:
    """log p(x) of all data, where annealing was run on some, and its standard error over data; else None.

    It is importance sampling's of all, and what annealing adds to it on the data that have both.

    Not for comparing rows: what annealing adds is a row's own, and so is the error of its mean over few data. Both
    errors are of means over data; what one datum contributes to both is neglected.
    """
    own, both = record["estimators"].get("importance"), record["agreement"].get("ais - importance")
    if own is None or both is None or both["data"] == own["data"]:
        return None
    return own["nats"] + both["nats"], math.hypot(own[_ERROR], both[_ERROR])


def records_of(study: Study) -> list[Record]:
    """What is kept and made by the words that the study has now, in the order of its table."""
    path = _path(study)
    known: list[Record] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return _ordered(study, [one for one in known if _is_current(study, one)])


def _ordered(study: Study, records: Sequence[Record]) -> list[Record]:
    rows, settings = [*study.rows], [*study.settings]

    def place(record: Record) -> tuple[int, int, int]:
        unit = unit_of(record)
        return settings.index(unit.setting), rows.index(unit.row), unit.seed

    return sorted(records, key=place)


def _is_current(study: Study, record: Record) -> bool:
    unit = unit_of(record)
    if unit.row not in study.rows or unit.setting not in study.settings:
        return False
    return record["words"] == study.words(unit) and record["evaluate"] == study.measure(unit)


def keep(study: Study, record: Record) -> bool:
    """Add a record, in place of an older one of the same run; False: it is of words that the study no longer has.

    Studies may be carried out by several processes at once: whoever has `writing` may keep, by the study as it is then.
    """
    if not _is_current(study, record):
        return False
    kept = [one for one in records_of(study) if unit_of(one) != unit_of(record)]
    lines = ",\n".join(json.dumps(one) for one in _ordered(study, [*kept, record]))  # so that changes can be read
    with whole(_path(study)) as temporary:  # others read at any time
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return True


def writing() -> AbstractContextManager[None]:
    """Inside, nobody else writes records, their pictures or their page."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    return one_at_a_time(RECORDS)


def read_record(study: Study, unit: Unit, run: Path, evaluation: Path) -> Record:
    """The record of a run that has been trained and evaluated."""
    summary, found = (_read(path) for path in (run / "summary.json", evaluation / "evaluation.json"))
    manifest, other = (_read(folder / "manifest.json") for folder in (run, evaluation))
    seen = [one["git"] or {} for one in (manifest, other)]
    record: Record = {
        "setting": unit.setting,
        "row": unit.row,
        "seed": unit.seed,
        "words": study.words(unit),
        "evaluate": study.measure(unit),
        "commit": seen[0].get("commit", "")[:10],
        "changed": sorted({path for one in seen for path in one.get("changed", ())}),
        "torch": manifest["versions"]["torch"],
        "device": manifest["device"],
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "summary": _chosen(summary, _OF_SUMMARY),
        "data": found["data"]["sha256"][:16],
        "estimators": {name: _chosen(values, _OF_ESTIMATE) for name, values in found["estimators"].items()},
        "agreement": found["agreement"],
        "posterior": posterior(found["diagnostics"]),
        "curve": curve(run / "metrics.csv"),
    }
    if study.paired:
        record["per_datum"] = per_datum(evaluation / "per_datum.csv", compared_by(record))
    return record


def per_datum(path: Path, estimator: str) -> list[float]:
    """Estimates of each datum, to a hundredth of a nat; of some data, those that have one."""
    with path.open(encoding="utf-8", newline="") as file:
        return [round(float(row[estimator]), 2) for row in csv.DictReader(file) if row[estimator]]


def curve(metrics: Path) -> list[list[float]]:
    """Decoder evaluations, seconds and validation bound, at validations that are even in the log of the epoch."""
    with metrics.open(encoding="utf-8", newline="") as file:
        rows = [[float(row[key]) for key in _OF_CURVE] for row in csv.DictReader(file)]
    last = len(rows) - 1
    chosen = sorted({round((last + 1) ** (point / (_CURVE_POINTS - 1))) - 1 for point in range(_CURVE_POINTS)})
    return [[float(f"{value:.7g}") for value in rows[index]] for index in chosen]


def posterior(diagnostics: dict[str, Any]) -> dict[str, Any]:
    """Mean KL to the posterior, nats, of the encoder and of the chain's end, over the data with reference chains."""
    found = diagnostics.get("sampler", {}).get("reference", {})
    means = {key: statistics.fmean(found[key]) for key in ("kl_start", "kl_end") if key in found}
    return _chosen(means | {"data": len(found["data"])}, (*means, "data")) if means else {}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _chosen(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Numbers as they are, but short: seven digits are more than a table shows."""
    return {
        key: float(f"{values[key]:.7g}") if isinstance(values[key], float) else values[key]
        for key in keys
        if key in values
    }


def _path(study: Study) -> Path:
    return RECORDS / f"{study.name}.json"
