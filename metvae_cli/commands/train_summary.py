"""The table that ends a training run, and the lines to type next."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from metvae_cli.commands.ending import from_here, go_on, look, plugins_word, print_ending


def print_summary(summary: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> None:
    """Print on standard output.

    Raises:
        BrokenPipeError: nobody reads it
    """
    table = Table(title="results (log-likelihoods and bounds in nats per datum)", title_justify="left")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    for name, value in _rows(summary, config):
        table.add_row(name, value)
    print_ending(table, _next_lines(summary, from_here(folder), config))


def _next_lines(summary: Mapping[str, Any], here: Path, config: Mapping[str, Any]) -> list[str]:
    """What to type next."""
    plugins = f" {word}" if (word := plugins_word(config)) else ""
    return [
        f"run        {here}",
        look(here),
        f"measure    metvae evaluate {_hydra_word('run', here)}{plugins}",
        f"pictures   metvae sample {_hydra_word('run', here)}{plugins}",
        *go_on("train", here, str(summary["stopped"]), config),
    ]


def _hydra_word(key: str, folder: Path) -> str:
    """key=folder as the shell and then Hydra read it: Hydra wants quotes of its own around unusual characters."""
    plain = re.fullmatch(r"[\w./\-:+%@]+", str(folder), flags=re.ASCII)
    return f"{key}={folder}" if plain else shlex.quote('{}="{}"'.format(key, str(folder).replace('"', '\\"')))


def _rows(summary: Mapping[str, Any], config: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("train bound (last epoch)", f"{summary['train/bound']:.3f}"),
        (f"validation bound (best, epoch {summary['best_epoch']:.4g})", f"{summary['val/bound']:.3f}"),
        ("test bound", f"{summary['test/bound']:.3f}"),
        (
            f"test log-likelihood ({summary['test/data']} data, {summary['test/samples']} importance samples)",
            f"{-summary['test/nll']:.3f} ± {summary['test/nll_se']:.3f}",
        ),
        ("effective importance samples", f"{summary['test/effective_samples']:.1f}"),
    ]
    if "test/bits_per_dimension" in summary:
        rows.append(("test bits per dimension", f"{summary['test/bits_per_dimension']:.4f}"))
    if "test/nll_of_true_process" in summary:
        rows.append(("test log-likelihood of the true process", f"{-summary['test/nll_of_true_process']:.3f}"))
    sampler = config["sampler"]
    rows += _chain_rows(summary, sampler.get("acceptance", "none"), sampler.get("skip_threshold") is not None)
    if summary["bad_steps"]:
        rows.append(("steps skipped (not finite)", str(summary["bad_steps"])))
    return [
        *rows,
        ("seconds of training, with validation", f"{summary['seconds']:.1f}"),
        ("decoder evaluations in training", f"{summary['decoder_evaluations']:,}"),
        ("stopped by", str(summary["stopped"])),
    ]


def _chain_rows(summary: Mapping[str, Any], acceptance: str, skips: bool) -> list[tuple[str, str]]:
    """Acceptance and step size of each step; what the first means depends on the rule."""
    meaning = {
        "metropolis": "acceptance per step",
        "barker": "acceptance per step (Barker: 1/2 for vanishing steps)",
        "none": "acceptance per step, had there been a Metropolis test",
    }
    rows = []
    labels = [("train/accept_", meaning[acceptance]), ("step_size/", "step size per step")]
    if skips:
        labels.insert(1, ("train/moved_", "moves made per step, the others skipped"))
    for prefix, label in labels:
        names = sorted((name for name in summary if name.startswith(prefix)), key=lambda name: int(name[len(prefix) :]))
        if names:
            digits = 2 if prefix.startswith("train") else 3
            rows.append((label, "  ".join(f"{summary[name]:.{digits}f}" for name in names)))
    return rows
