"""The tables that end `metvae infer`, and the lines to type next."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from metvae_cli.commands.ending import from_here, go_on, print_ending

# Above this the chains have not mixed (Vehtari et al. 2021).
_MIXED = 1.01


def print_inference(summary: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> None:
    """Print on standard output.

    Raises:
        BrokenPipeError: nobody reads it
    """
    table = Table(title="results (in nats where they are logarithms)", title_justify="left")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    for name, value in _rows(summary):
        table.add_row(name, value)
    print_ending(table, _next_lines(summary, folder, config))


def print_comparison(summaries: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """One row per method. Raises BrokenPipeError where nobody reads it."""
    table = Table(title="all methods (in nats where they are logarithms)", title_justify="left")
    for column in ("method", "bound", "log Z error", "modes", "energy distance", "R-hat", "effective / evaluation"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, summary in summaries.items():
        kind = "samples" if "bound" in summary else "chains"
        table.add_row(
            name.removeprefix("infer_"),
            _number(summary.get("bound"), 3),
            _number(summary.get("log_normalizer_error"), 3),
            str(summary.get(f"{kind}/modes_found", "-")),
            _number(summary.get(f"{kind}/energy_distance"), 4),
            _number(summary.get("chains/r_hat"), 3),
            _number(summary.get("chains/effective_size_per_evaluation"), 4),
        )
    here = from_here(folder)
    print_ending(table, [f"run        {here}", f"look       {here / 'methods.png'}"])


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if "bound" in summary:
        rows += [
            ("bound on log Z", f"{summary['bound']:.3f} ± {summary['bound_se']:.3f}"),
            (_name_of_estimate(summary), f"{summary['log_normalizer']:.3f} ± {summary['log_normalizer_se']:.3f}"),
        ]
        if "log_normalizer_exact" in summary:
            rows.append(("log Z, exact", f"{summary['log_normalizer_exact']:.3f}"))
            rows.append(("error of the estimate", f"{summary['log_normalizer_error']:+.3f}"))
        rows.append(("effective share of the weights", f"{100 * summary['effective_weights']:.1f} %"))
        rows += _distances(summary, "samples", "samples")
    if "chains/r_hat" in summary:
        rows += _distances(summary, "chains", "long chains")
        rows += [
            ("long chains: R-hat (1 is mixed)", _number(summary["chains/r_hat"], 3)),
            ("long chains: effective draws", _number(summary["chains/effective_size"], 0)),
            (
                "long chains: effective draws per evaluation",
                _number(summary["chains/effective_size_per_evaluation"], 4),
            ),
            ("long chains: acceptance", _number(summary["chains/accept"], 2)),
        ]
    for prefix, label in (("step_size/", "step size per step"), ("chains/step_size_", "long chains: step sizes")):
        sizes = [value for name, value in summary.items() if name.startswith(prefix)]
        if sizes:
            rows.append((label, "  ".join(f"{value:.3g}" for value in sizes)))
    if "stopped" in summary:
        rows += [
            ("seconds of training", f"{summary['seconds']:.1f}"),
            ("evaluations of the density in training", f"{summary['training_evaluations']:,}"),
            ("stopped by", str(summary["stopped"])),
        ]
    return rows


def _distances(summary: Mapping[str, Any], kind: str, label: str) -> list[tuple[str, str]]:
    """How far draws are from exact ones."""
    rows = []
    if f"{kind}/modes_found" in summary:
        rows.append((f"{label}: modes found", f"{summary[f'{kind}/modes_found']} of {summary['modes']}"))
    if f"{kind}/energy_distance" in summary:
        rows.append((f"{label}: energy distance to exact draws", _number(summary[f"{kind}/energy_distance"], 4)))
        rows.append((f"{label}: squared MMD to exact draws", _number(summary[f"{kind}/mmd"], 5)))
    return rows


def _next_lines(summary: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> list[str]:
    """What to look at and to type next."""
    here = from_here(folder)
    lines = [f"run        {here}", f"look       {here}/density.png, samples.png, walk.png"]
    if "chains/r_hat" not in summary:
        lines[1] = f"look       {here}/density.png, samples.png"
    if summary.get("chains/least_moved") == 0:
        lines.append("note       a chain never moved, so that R-hat is unknown: try a smaller sampler.step_size")
    elif "chains/r_hat" in summary and config["evaluation"]["chains"] == 1:
        lines.append("note       R-hat compares chains, and there is one: evaluation.chains=2 or more")
    elif not summary.get("chains/r_hat", 1.0) < _MIXED:
        lines.append(f"note       R-hat is above {_MIXED}: chains too short (evaluation.chain_draws) or not mixing")
    if "chains/r_hat" in summary and config["sampler"].get("acceptance") == "none":
        lines.append("note       without acceptance, long chains have another limit than the target, or none")
    if "stopped" in summary:
        path = config["target"].get("path")
        moved = shlex.quote(f"target.path={path}") if path else ""
        lines += go_on("infer", here, str(summary["stopped"]), config, moved)
    return lines


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "-"
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"


def _name_of_estimate(summary: Mapping[str, Any]) -> str:
    """What the log of the mean weight is."""
    if not summary["log_normalizer_is_unbiased"]:
        return "lower bound on log Z, from the mean weight"
    trusted = summary["pareto_k"] <= 0.7
    return (
        "estimate of log Z" if trusted else f"estimate of log Z (not to be trusted, Pareto k {summary['pareto_k']:.2f})"
    )
