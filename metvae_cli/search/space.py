"""What is searched: keys, each with the values that it may take."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial


class Parameter(NamedTuple):
    """A key and the distribution of its values."""

    key: str
    distribution: CategoricalDistribution | FloatDistribution | IntDistribution

    def word(self, value: Any) -> str:
        """The override that sets the key. A number keeps all of its digits."""
        return f"{self.key}={value!r}" if isinstance(value, float) else f"{self.key}={value}"

    def suggest(self, trial: Trial) -> Any:
        """The value that the trial has, or is to have."""
        match self.distribution:
            case CategoricalDistribution() as found:
                return trial.suggest_categorical(self.key, found.choices)
            case IntDistribution() as found:
                return trial.suggest_int(self.key, found.low, found.high, step=found.step, log=found.log)
            case FloatDistribution() as found:
                return trial.suggest_float(self.key, found.low, found.high, step=found.step, log=found.log)

    def ends(self) -> list[Any]:
        """All of a choice's values; of a range's those at its ends."""
        if isinstance(self.distribution, CategoricalDistribution):
            return list(self.distribution.choices)
        return [self.distribution.low, self.distribution.high]


def choice(key: str, values: Sequence[str]) -> Parameter:
    """One of several values, in no order, each as one types it."""
    return Parameter(key, CategoricalDistribution(list(dict.fromkeys(values))))


def interval(key: str, low: float, high: float, *, log: bool) -> Parameter:
    """A number between two others: an integer between integers, both included.

    Raises:
        ValueError: there is none
    """
    if not low < high:
        raise ValueError(f"holds nothing between {low} and {high}; write the smaller number first")
    _check_log(low, log)
    if isinstance(low, int) and isinstance(high, int):
        return Parameter(key, IntDistribution(low, high, log=log))
    return Parameter(key, FloatDistribution(low, high, log=log))


def grid(key: str, values: Sequence[float], step: float, *, log: bool) -> Parameter:
    """One of several numbers in equal steps.

    Raises:
        ValueError: there is none, or a logarithmic scale has steps
    """
    if not values:
        raise ValueError("holds nothing")
    low, high, step = min(values), max(values), abs(step)
    _check_log(low, log)
    if all(isinstance(value, int) for value in values) and isinstance(step, int):
        if log and step != 1:
            raise ValueError("a logarithmic scale has steps of 1; leave the step out")
        return Parameter(key, IntDistribution(int(low), int(high), log=log, step=step))
    if log:
        raise ValueError("a logarithmic scale of numbers with fractions has no steps; write tag(log, interval(...))")
    return Parameter(key, FloatDistribution(low, high, step=step))


def _check_log(low: float, log: bool) -> None:
    if log and low <= 0:
        raise ValueError(f"a logarithmic scale does not reach {low}; begin above 0")
