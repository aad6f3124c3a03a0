"""A comparison for other programs: CSV with one row per group, JSON with everything."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from metvae_cli.comparison.groups import keys_of
from metvae_cli.comparison.metrics import direction
from metvae_cli.comparison.rows import Comparison, Row
from metvae_cli.comparison.runs import FINISHED, Run
from metvae_cli.comparison.statistics import Share


def to_csv(comparison: Comparison) -> str:
    """One row per group: its label, the keys that differ, counts, and columns METRIC, METRIC_sd, METRIC_se, ...

    With a baseline also METRIC_difference, METRIC_difference_low and _high, and METRIC_pairs.
    """
    keys = keys_of([row.group for row in comparison.rows])
    records = [_flat_record(comparison, row, keys) for row in comparison.rows]
    text = io.StringIO()
    columns = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def to_json(comparison: Comparison) -> str:
    """Everything, down to the values of each run; what is not known is null."""
    content: dict[str, Any] = {
        "metrics": {
            name: {1: "higher is better", -1: "lower is better", 0: None}[direction(name)]
            for name in comparison.metrics
        },
        "confidence": comparison.confidence,
        "baseline": comparison.baseline.label if comparison.baseline else None,
        "groups": [_group_record(comparison, row) for row in comparison.rows],
        "importance": {
            metric: [_share_record(share) for share in found] for metric, found in comparison.shares.items()
        },
        "problems": [_problem_record(run) for run in comparison.problems],
    }
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _flat_record(comparison: Comparison, row: Row, keys: list[str]) -> dict[str, Any]:
    record: dict[str, Any] = {"method": row.group.label, **{key: row.group.values.get(key) for key in keys}}
    record |= _counts(row)
    for name in comparison.metrics:
        found = row.moments.get(name)
        record[name] = found.mean if found else None
        record |= {f"{name}_{spread}": getattr(found, spread, None) for spread in ("sd", "se", "ci", "count")}
        if comparison.baseline is not None:
            difference = row.differences.get(name)
            record[f"{name}_difference"] = difference.mean if difference else None
            record[f"{name}_difference_low"] = difference.low if difference else None
            record[f"{name}_difference_high"] = difference.high if difference else None
            record[f"{name}_pairs"] = difference.pairs if difference else None
    return record


def _group_record(comparison: Comparison, row: Row) -> dict[str, Any]:
    return {
        "method": row.group.label,
        "values": dict(row.group.values),
        **_counts(row),
        "repeated_seeds": row.group.repeated_seeds,
        "metrics": {name: asdict(found) for name, found in row.moments.items()},
        "differences": {name: asdict(found) for name, found in row.differences.items()},
        "members": [
            {
                "folder": str(run.folder),
                "seed": run.seed,
                "status": run.state,
                "metrics": {name: run.metrics[name] for name in sorted(run.metrics)},
            }
            for run in row.group.runs
        ],
    }


def _counts(row: Row) -> Mapping[str, int]:
    finished = sum(run.state == FINISHED for run in row.group.runs)
    return {"runs": finished, "not_finished": len(row.group.runs) - finished}


def _share_record(share: Share) -> dict[str, Any]:
    return {**asdict(share), "levels": dict(share.levels)}


def _problem_record(run: Run) -> dict[str, Any]:
    return {"folder": str(run.folder), "status": run.state, "reason": run.reason, "seed": run.seed}
