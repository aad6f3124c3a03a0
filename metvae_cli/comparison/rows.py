"""What is compared: groups in order, their means, the best of them, their differences and what mattered."""

import statistics
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from metvae_cli.comparison.filters import value_of
from metvae_cli.comparison.groups import Group, keys_of, natural
from metvae_cli.comparison.metrics import direction
from metvae_cli.comparison.names import resolve
from metvae_cli.comparison.runs import Run
from metvae_cli.comparison.statistics import (
    Difference,
    Moments,
    Share,
    moments,
    paired_difference,
    share_of_variance,
)
from metvae_cli.errors import ConfigError

_READ_AT_ONCE = 300  # characters of a list within one line


@dataclass(frozen=True)
class Row:
    """One group and, by metric, its mean and spread, and its difference from the baseline."""

    group: Group
    moments: Mapping[str, Moments]
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Comparison:
    """All that is shown.

    Args:
        rows: one per group, in the order in which they are shown
        metrics: names of the columns
        baseline: the group that differences are taken from; None where none are
        shares: metric -> what each key explains of its variance, the largest first
        problems: runs that are not finished
        confidence: of all intervals
    """

    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    baseline: Group | None
    shares: Mapping[str, Sequence[Share]]
    problems: tuple[Run, ...]
    confidence: float


def values_by_seed(group: Group, metric: str) -> dict[int, float]:
    """A metric of a group's finished runs; the mean where a seed stands there more than once."""
    found: dict[int, list[float]] = defaultdict(list)
    for run in group.finished:
        if metric in run.metrics and run.seed is not None:
            found[run.seed].append(run.metrics[metric])
    return {seed: statistics.fmean(values) for seed, values in found.items()}


def build_row(group: Group, metrics: Sequence[str], baseline: Group | None, confidence: float) -> Row:
    """The numbers of a group. Differences are taken only from a baseline on the same data."""
    values = {name: [run.metrics[name] for run in group.finished if name in run.metrics] for name in metrics}
    found = {name: moments(values[name], confidence) for name in metrics}
    differences: dict[str, Difference] = {}
    if baseline is not None and baseline is not group and baseline.arena == group.arena:
        for name in metrics:
            difference = paired_difference(values_by_seed(group, name), values_by_seed(baseline, name), confidence)
            if difference is not None:
                differences[name] = difference
    return Row(group, {name: known for name, known in found.items() if known is not None}, differences)


def ordered(groups: Sequence[Group], key: str, known_metrics: set[str], *, reverse: bool) -> list[Group]:
    """Groups sorted by a metric, the best first (the lowest where it is not known what is better), or by a key.

    Groups without a value stand last.

    Raises:
        ConfigError: there is no such metric or key
    """
    if key == "label":
        return list(reversed(groups)) if reverse else list(groups)
    name = resolve(key, {*known_metrics, "label", *_all_keys(groups)}, "--sort")
    if name in known_metrics:
        means = {id(group): _mean(group, name) for group in groups}
        flip = (direction(name) > 0) != reverse
        known = [group for group in groups if means[id(group)] is not None]
        ranked = sorted(known, key=lambda group: means[id(group)] or 0.0, reverse=flip)
        return ranked + [group for group in groups if means[id(group)] is None]
    values = {id(group): value for group in groups if (value := value_of(group.runs[0], name)) is not None}
    having = [group for group in groups if id(group) in values]
    ranked = sorted(having, key=lambda group: natural(values[id(group)]), reverse=reverse)
    return ranked + [group for group in groups if id(group) not in values]


def find_baseline(groups: Sequence[Group], words: str) -> Group:
    """The only group that is described by all the words: its label, values like sampler=none, or parts of its label.

    Raises:
        ConfigError: there is none, or several
    """
    same = [group for group in groups if group.label == words]
    parts = words.split()
    exact = [
        group for group in groups if all(part in group.label.split() or part in group.values.values() for part in parts)
    ]
    loose = [group for group in groups if all(part in group.label for part in parts)]
    for found in (same, exact, loose):
        if len(found) == 1:
            return found[0]
        if found:
            labels = ", ".join(f"'{group.label}'" for group in found[:4])
            raise ConfigError(f"--paired={words}: could be {labels}{' ...' if len(found) > 4 else ''}; say more of it")
    known = sorted({part for group in groups for part in group.label.split()})
    if near := [found for part in parts if part not in known for found in get_close_matches(part, known, n=1)]:
        raise ConfigError(f"--paired={words}: no such method; did you mean {near[0]}?")
    labels = textwrap.shorten(", ".join(f"'{group.label}'" for group in groups), _READ_AT_ONCE, placeholder=" ...")
    raise ConfigError(f"--paired={words}: no such method; there are {labels}")


def shares(groups: Sequence[Group], metric: str) -> list[Share]:
    """What each key in which groups differ, and the seed, explains of a metric's variance; the largest first.

    A key that only some runs have, like the step size of one sampler, is judged among those.
    """
    pairs = [(group, run) for group in groups for run in group.finished if metric in run.metrics]
    found = []
    for key in [*keys_of(groups), "seed"]:
        levels = [str(run.seed) if key == "seed" else group.values.get(key) for group, run in pairs]
        having = [(level, run.metrics[metric]) for level, (_, run) in zip(levels, pairs, strict=True) if level]
        share = share_of_variance(key, [level for level, _ in having], [value for _, value in having])
        if share is not None:
            found.append(share)
    return sorted(found, key=lambda share: share.adjusted if share.adjusted is not None else -1.0, reverse=True)


def _mean(group: Group, metric: str) -> float | None:
    found = moments([run.metrics[metric] for run in group.finished if metric in run.metrics])
    return None if found is None else found.mean


def _all_keys(groups: Sequence[Group]) -> set[str]:
    return {key for group in groups for run in group.runs[:1] for key in (*run.choices, *run.settings)}
