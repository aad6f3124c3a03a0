"""Means over seeds with their spread, differences on the same seeds, and how much of the variance a key explains."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Moments:
    """Mean and spread of some values.

    Args:
        count: how many values
        mean: of them
        sd: standard deviation with count - 1; None for one value
        se: standard error of the mean; None for one value
        ci: half the width of the t confidence interval of the mean; None for one value
    """

    count: int
    mean: float
    sd: float | None
    se: float | None
    ci: float | None


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, with the ends of its t confidence interval; None for fewer than two pairs."""

    pairs: int
    mean: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Share:
    """How much of the variance of a metric one key explains by itself.

    Args:
        key: a key, or `seed`
        levels: its values with the mean of the metric at each, the highest first
        runs: how many runs have the key
        share: eta squared, the variance between levels over all variance; grows with the number of levels by chance
        adjusted: epsilon squared, the same less what chance gives; 0 or below where the key explains nothing
    """

    key: str
    levels: tuple[tuple[str, float], ...]
    runs: int
    share: float
    adjusted: float | None


def moments(values: Sequence[float], confidence: float = 0.95) -> Moments | None:
    """Mean and spread; None of no values."""
    if not values:
        return None
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Moments(len(values), mean, None, None, None)
    sd = statistics.stdev(values)
    se = sd / math.sqrt(len(values))
    return Moments(len(values), mean, sd, se, se * _quantile(len(values) - 1, confidence))


def paired_difference(
    ours: Mapping[int, float], theirs: Mapping[int, float], confidence: float = 0.95
) -> Difference | None:
    """Ours minus theirs on the seeds that both have; None if there is none."""
    found = moments([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())], confidence)
    if found is None:
        return None
    if found.ci is None:
        return Difference(found.count, found.mean, None, None)
    return Difference(found.count, found.mean, found.mean - found.ci, found.mean + found.ci)


def share_of_variance(key: str, levels: Sequence[str], values: Sequence[float]) -> Share | None:
    """How much of the variance of the values their levels explain.

    Returns:
        None where there are fewer than two levels or the values do not vary
    """
    by_level: dict[str, list[float]] = defaultdict(list)
    for level, value in zip(levels, values, strict=True):
        by_level[level].append(value)
    mean = statistics.fmean(values) if values else 0.0
    total = math.fsum((value - mean) ** 2 for value in values)
    if len(by_level) < 2 or total == 0:
        return None
    means = {level: statistics.fmean(own) for level, own in by_level.items()}
    between = math.fsum(len(own) * (means[level] - mean) ** 2 for level, own in by_level.items())
    free, between_free = len(values) - len(by_level), len(by_level) - 1
    adjusted = (between - between_free * (total - between) / free) / total if free else None
    ranked = tuple(sorted(means.items(), key=lambda pair: -pair[1]))
    return Share(key, ranked, len(values), between / total, adjusted)


def _quantile(free: int, confidence: float) -> float:
    """Of Student's t: what a two-sided interval is wide in standard errors."""
    from scipy.special import stdtrit  # here: slow to import, and --help needs none of it

    return float(stdtrit(free, (1 + confidence) / 2))
