"""What the numbers of a run are called, which of them are shown, and which way is better."""

from collections import Counter
from collections.abc import Iterable, Sequence

from metvae_cli.comparison.runs import Run

# Shown where nothing else is asked for: of training, of evaluations, of `infer`, and the cost of each.
_USUAL = (
    "val/bound",
    "test/log_likelihood",
    "importance/nats",
    "ais/nats",
    "bound",
    "log_normalizer_error",
    "chains/r_hat",
    "decoder_evaluations",
    "training_evaluations",
    "seconds",
)
_OF_EVALUATIONS = ("importance/nats", "ais/nats")
_HIGHER = (
    "bound",
    "log_likelihood",
    "nats",
    "effective_samples",
    "effective_size",
    "effective_size_per_evaluation",
    "effective_weights",
    "modes_found",
)
_LOWER = (
    "nll",
    "bits_per_dimension",
    "decoder_evaluations",
    "training_evaluations",
    "evaluations",
    "seconds",
    "energy_distance",
    "mmd",
    "r_hat",
)


def direction(metric: str) -> int:
    """1 where higher is better, -1 where lower is, 0 where neither is known."""
    last = metric.rpartition("/")[2]
    return (last in _HIGHER) - (last in _LOWER)


def measured(runs: Iterable[Run]) -> set[str]:
    """Every metric that at least one run has."""
    return {name for run in runs for name in run.metrics}


def usual(runs: Sequence[Run]) -> list[str]:
    """The metrics to show where none is asked for: those of evaluations only where half of the runs have one."""
    having = Counter(name for run in runs for name in run.metrics)
    finished = sum(bool(run.metrics) for run in runs)
    shown = [name for name in _USUAL if having[name] and (name not in _OF_EVALUATIONS or 2 * having[name] >= finished)]
    return shown or ["val/bound", "test/log_likelihood", "decoder_evaluations"]
