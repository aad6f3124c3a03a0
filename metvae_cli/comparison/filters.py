"""`--filter sampler=hmc --filter 'seed<3'`: which runs are looked at."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from metvae_cli.comparison.names import resolve
from metvae_cli.comparison.runs import Run
from metvae_cli.errors import ConfigError

_ORDERS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)
_OWN_WORDS = ("seed", "status", "folder")


@dataclass(frozen=True)
class Condition:
    """A key, what it is held against, and how: one of = != < <= > >=."""

    key: str
    relation: str
    value: str


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        ConfigError: it is none
    """
    found = re.fullmatch(r"\s*([^\s<>=!]+)\s*(<=|>=|==|!=|=|<|>)\s*(.*?)\s*", text)
    if not found or not found[3]:
        raise ConfigError(f"--filter={text}: is no condition; write key=value, key!=value or key<value, like 'seed<3'")
    key, relation, value = found.groups()
    relation = relation.replace("==", "=")
    if relation in _ORDERS and _number(value) is None:
        raise ConfigError(f"--filter={text}: {value} is no number; {relation} compares numbers")
    return Condition(key, relation, value)


def matching(runs: Sequence[Run], conditions: Sequence[Condition]) -> list[Run]:
    """The runs that meet all conditions; one that lacks the key meets only `!=`.

    Raises:
        ConfigError: no run has such a key
    """
    known = set(_OWN_WORDS) if not conditions else {key for run in runs for key in _keys(run)}
    for condition in conditions:
        key = resolve(condition.key, known, "--filter")
        runs = [run for run in runs if _holds(value_of(run, key), condition)]
    return list(runs)


def value_of(run: Run, key: str) -> str | None:
    """What a run has under a key: of the configuration, a choice, a metric, its seed, status or folder."""
    own = {"seed": None if run.seed is None else str(run.seed), "status": run.state, "folder": str(run.folder)}
    for values in (own, run.choices, run.settings, run.metrics):
        if key in values:
            value = values[key]
            return None if value is None else str(value)
    return None


def _keys(run: Run) -> set[str]:
    return {*_OWN_WORDS, *run.choices, *run.settings, *run.metrics}


def _holds(value: str | None, condition: Condition) -> bool:
    if value is None:
        return condition.relation == "!="
    if condition.relation in _ORDERS:
        left, right = _number(value), _number(condition.value)
        return left is not None and right is not None and _ORDERS[condition.relation](left, right)
    # A list, like [64,64], is one value; otherwise commas part several.
    wanted = [condition.value] if condition.value.startswith("[") else condition.value.split(",")
    return any(_same(value, one) for one in wanted) == (condition.relation == "=")


def _same(value: str, wanted: str) -> bool:
    """Equal as numbers, or as text in which * and ? stand for anything."""
    left, right = _number(value), _number(wanted)
    if left is not None and right is not None:
        return left == right
    if wanted.startswith("["):
        return value.replace(" ", "") == wanted.replace(" ", "")
    return fnmatchcase(value, wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
