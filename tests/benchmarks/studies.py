"""A small study, and a record of one of its runs."""

import fcntl
import os
from pathlib import Path
from typing import Any

from benchmarks import study_records
from benchmarks.study_plan import Study, Unit

GRID = Study(
    name="tiny",
    title="Tiny",
    rows={"VAE": ("sampler=none", "objective=elbo"), "IWAE-2": ("sampler=none", "objective=iwae")},
    seeds=(0, 1),
    common=("latent_dim=3",),
    grid={"wide": ("decoder.hidden=[32]",), "narrow": ("decoder.hidden=[4]",)},
    evaluate=("importance.num_samples=5",),
)


def record(unit: Unit, nats: float, **changed: Any) -> study_records.Record:
    found = {
        "setting": unit.setting,
        "row": unit.row,
        "seed": unit.seed,
        "words": GRID.words(unit),
        "evaluate": list(GRID.evaluate),
        "commit": "0123456789",
        "torch": "2",
        "machine": "a machine",
        "summary": {"seconds": 2.0, "iterations": 1000, "decoder_evaluations": 7, "test/bound": nats - 0.5},
        "estimators": {
            "importance": {"nats": nats, "standard_error_over_data": 0.25, "effective_samples": 30.0, "pareto_k": 0.5}
        },
        "agreement": {},
        "curve": [[1.0, 1.0, -9.0], [7.0, 2.0, -5.0]],
    }
    return found | changed


def is_locked(folder: Path) -> bool:
    """Whether somebody is writing there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
