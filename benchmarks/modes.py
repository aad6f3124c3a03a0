"""Modes found against dimension, of a sweep of `metvae infer` over methods and `target.dim`.

    python -m benchmarks.modes outputs/figures/modes

Writes modes.json and modes.png beside the sweep's jobs.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.words import Parser

_LABELS = {
    "infer_gaussian_eight_modes": "Gaussian",
    "infer_realnvp_eight_modes": "RealNVP",
    "infer_metflow": "MetFlow",
    "infer_hmc_eight_modes": "MetVAE HMC",
    "infer_annealed_eight_modes": "annealed chain",
}
_KEYS = {"modes": "samples/modes_found", "distance": "samples/energy_distance", "seconds": "seconds"}
Row = dict[str, Any]


def read_sweep(folder: Path) -> Iterator[Row]:
    """Method, dimension and numbers of each finished job; a job that failed has none."""
    for path in sorted(folder.glob("*/status.json")):
        overrides = (path.parent / ".hydra" / "overrides.yaml").read_text(encoding="utf-8").replace("- ", "").split()
        words = dict(word.split("=", 1) for word in overrides)
        summary = path.parent / "summary.json"
        found = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
        numbers = {name: found.get(key) for name, key in _KEYS.items()}
        yield {"method": _LABELS[words["experiment"]], "dim": int(words["target.dim"]), **numbers}


def by_method(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """Rows by method, in the order of the labels, and dimension."""
    return {label: {row["dim"]: row for row in rows if row["method"] == label} for label in _LABELS.values()}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Modes found, and the energy distance, against dimension."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for label, found in by_method(rows).items():
        for axis, key in zip(axes, ("modes", "distance"), strict=True):
            known = sorted(dim for dim, row in found.items() if row[key] is not None)
            axis.plot(known, [found[dim][key] for dim in known], "o-", label=label)
    for axis, name in zip(axes, ("modes found, of 8", "energy distance to exact draws"), strict=True):
        axis.set(xlabel="dimension", ylabel=name, xscale="log")
        dims = sorted({row["dim"] for row in rows})
        axis.set_xticks(dims, [str(dim) for dim in dims])
        axis.minorticks_off()
    axes[1].legend(loc="upper left")  # where the distances of few dimensions leave room
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def table_of_modes(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of a table: modes found and energy distance, a method in each row."""
    dims = sorted({row["dim"] for row in rows})
    yield f"| modes found; energy distance | {' | '.join(f'dimension {dim}' for dim in dims)} |"
    yield "|---" * (len(dims) + 1) + "|"
    for label, found in by_method(rows).items():
        yield f"| {label} | {' | '.join(_cell(found.get(dim)) for dim in dims)} |"


def _cell(row: Row | None) -> str:
    if row is None:
        return "not measured"
    if row["modes"] is None:
        return "failed"
    return f"{row['modes']}; {max(row['distance'], 0):.2f}"  # an estimate of 0 may be below


def main() -> int:
    """Read the sweep and write both files."""
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    rows = list(read_sweep(folder))
    if not rows:
        parser.error(f"{folder}: holds no jobs of a sweep of `metvae infer`")
    (folder / "modes.json").write_text(json.dumps(rows), encoding="utf-8")
    draw(rows, folder / "modes.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
