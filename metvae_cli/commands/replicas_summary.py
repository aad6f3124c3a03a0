"""The table that ends the training of several seeds side by side: a line for each, and mean and spread of all."""

import math
import shlex
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from metvae_cli.commands.ending import from_here, go_on, look, print_ending

_SUMMARIZED = ("val/bound", "test/bound", "test/nll")


def summarized(found: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Means and standard deviations over seeds: what summary.json of all of them holds."""
    result: dict[str, Any] = {"seeds": list(found)}
    for name in _SUMMARIZED:
        result[name], result[f"{name}_sd"] = _mean_and_spread([summary[name] for summary in found.values()])
    return result


def print_replicas(found: Mapping[int, Mapping[str, Any]], folder: Path, config: Mapping[str, Any]) -> None:
    """Print on standard output.

    found: what summary.json of each seed holds

    Raises:
        BrokenPipeError: nobody reads it
    """
    table = Table(title="results (log-likelihoods and bounds in nats per datum)", title_justify="left")
    table.add_column("seed")
    for column in ("validation bound", "of epoch", "test bound", "test log-likelihood", "stopped by"):
        table.add_column(column, justify="right")
    for seed, summary in found.items():
        table.add_row(
            str(seed),
            f"{summary['val/bound']:.3f}",
            f"{summary['best_epoch']:.4g}",
            f"{summary['test/bound']:.3f}",
            f"{-summary['test/nll']:.3f} ± {summary['test/nll_se']:.3f}",
            str(summary["stopped"]),
        )
    table.add_section()
    bounds = {name: _mean_and_spread([summary[name] for summary in found.values()]) for name in _SUMMARIZED}
    validation, test, nll = (bounds[name] for name in _SUMMARIZED)
    table.add_row("mean ± sd", _both(validation), "", _both(test), _both((-nll[0], nll[1])), "")
    here = from_here(folder)
    lines = [
        f"runs       {here}/seed_{{{','.join(map(str, found))}}}",
        look(here),
        f"compare    metvae compare {shlex.quote(str(here))}",
        *go_on("train", here, str(next(iter(found.values()))["stopped"]), config),
    ]
    print_ending(table, lines)


def _mean_and_spread(values: list[float]) -> tuple[float, float]:
    if not values:
        return math.nan, math.nan
    if not all(map(math.isfinite, values)):
        return sum(values) / len(values), math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def _both(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.3f} ± {pair[1]:.3f}"
