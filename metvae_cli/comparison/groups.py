"""Groups of runs that differ in their seed alone, each with a short label of what sets it apart from the others."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metvae_cli.comparison.names import resolve
from metvae_cli.comparison.runs import FINISHED, Run

# These change no number that a run measures, beside the seed, which is what a group is averaged over.
_WITHOUT_EFFECT = {
    "seed",
    "resume",
    "methods",
    "plugins",
    "trainer.log_every",
    "trainer.picture_every",
    "trainer.checkpoint_seconds",
}


@dataclass(frozen=True)
class Group:
    """Runs of one method.

    Args:
        label: what sets it apart, as one would type it
        values: differing key -> this group's value, for those keys that mean something for it
        runs: all, whatever became of them
        arena: groups of one arena can be held against each other; others have other data
    """

    label: str
    values: Mapping[str, str]
    runs: tuple[Run, ...]
    arena: str

    @property
    def finished(self) -> tuple[Run, ...]:
        """Those that have numbers."""
        return tuple(run for run in self.runs if run.state == FINISHED)

    @property
    def repeated_seeds(self) -> list[int]:
        """Seeds that more than one finished run has."""
        counts = Counter(run.seed for run in self.finished if run.seed is not None)
        return sorted(seed for seed, count in counts.items() if count > 1)


def group_runs(runs: Sequence[Run], by: Sequence[str] = ()) -> list[Group]:
    """Group by everything but the seed, or by the keys `by` alone; sorted by label.

    Runs without configuration are in none.

    Raises:
        ConfigError: no run has a key of `by`
    """
    described = [run for run in runs if run.configured]
    values = [_values(run) for run in described]
    if by:
        known = {key for own in values for key in own}
        keys = [resolve(key, known, "--by") for key in by]
        shown = [{key: own[key] for key in keys if key in own} for own in values]
    else:
        varied = _varied_choices(values)
        differing = _differing(values, varied)
        keys = _kept(described, values, differing, varied)
        shown = [_shown(own, keys, differing, varied) for own in values]
    members: dict[tuple[tuple[str, str], ...], list[Run]] = defaultdict(list)
    for run, own in zip(described, shown, strict=True):
        members[tuple(own.items())].append(run)
    groups = [Group(_label(pairs, own[0]), dict(pairs), tuple(own), _arena(own[0])) for pairs, own in members.items()]
    return sorted(groups, key=lambda group: [natural(value) for value in group.values.values()])


def natural(value: str) -> tuple[int, float, str]:
    """A key for sorting in which 9 comes before 10."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def keys_of(groups: Sequence[Group]) -> list[str]:
    """Every key in which groups differ, each once."""
    return list(dict.fromkeys(key for group in groups for key in group.values))


def _values(run: Run) -> dict[str, str]:
    """Everything that describes what was run: choices first, then settings."""
    settings = {key: value for key, value in run.settings.items() if key not in _WITHOUT_EFFECT}
    # Without a name, a choice is known by its class.
    classes = {
        key.removesuffix("._target_"): value.rpartition(".")[2]
        for key, value in settings.items()
        if key.count(".") == 1 and key.endswith("._target_")
    }
    return {**classes, **run.choices, **settings}


def _varied_choices(values: Sequence[Mapping[str, str]]) -> set[str]:
    """Groups of configurations from which not all runs took the same; absence counts."""
    names = {key.partition(".")[0] for own in values for key in own if "." in key}
    return {name for name in names if len({own.get(name) for own in values}) > 1}


def _context(own: Mapping[str, str], key: str, varied: set[str]) -> str:
    """Among which runs a key is compared: `sampler.step_size` only among those with the same sampler."""
    node, dot, _ = key.partition(".")
    return own.get(node, "") if dot and node in varied else ""


def _differing(values: Sequence[Mapping[str, str]], varied: set[str]) -> set[tuple[str, str]]:
    """Keys in which runs differ, each with the context in which they do."""
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    holders: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for own in values:
        for node in varied:
            sizes[node, own.get(node, "")] += 1
        for key, value in own.items():
            place = (key, _context(own, key, varied))
            seen[place].add(value)
            holders[place] += 1
    differing = set()
    for (key, context), found in seen.items():
        node = key.partition(".")[0]
        whole = sizes[node, context] if "." in key and node in varied else len(values)
        if len(found) > 1 or holders[key, context] < whole:
            differing.add((key, context))
    return differing


def _kept(
    runs: Sequence[Run], values: Sequence[Mapping[str, str]], differing: set[tuple[str, str]], varied: set[str]
) -> list[str]:
    """The keys for labels: those typed, and of the others only what tells runs apart that the typed ones do not."""
    order = list(dict.fromkeys(key for own in values for key in own))
    candidates = [key for key in order if any(key == differs for differs, _ in differing)]
    typed = {key for run in runs for key in run.typed}
    kept = [key for key in candidates if key in typed]
    marks = [hash(tuple(_shown(own, kept, differing, varied).items())) for own in values]
    for key in candidates:
        if key in typed:
            continue
        finer = [
            hash((mark, own.get(key) if (key, _context(own, key, varied)) in differing else None))
            for mark, own in zip(marks, values, strict=True)
        ]
        if len(set(finer)) > len(set(marks)):
            kept.append(key)
            marks = finer
    return kept


def _shown(
    own: Mapping[str, str], keys: Sequence[str], differing: set[tuple[str, str]], varied: set[str]
) -> dict[str, str]:
    """A run's values of the keys that mean something for it."""
    return {key: own[key] for key in keys if key in own and (key, _context(own, key, varied)) in differing}


def _label(pairs: Sequence[tuple[str, str]], run: Run) -> str:
    """The differing values as one types them; of a single group, what it is."""
    words = [f"{key}={value}" for key, value in pairs]
    if not words:
        words = [f"{key}={run.choices[key]}" for key in ("experiment", "sampler", "objective") if key in run.choices]
    return " ".join(words) or "all runs"


def _arena(run: Run) -> str:
    """What makes numbers of two groups comparable at all: the data, or the density, and the kind of likelihood."""
    nodes = ("target.",) if run.data else ("dataset.", "target.")
    described = [f"{key}={value}" for key, value in sorted(run.settings.items()) if key.startswith(nodes)]
    return " ".join([run.data, *described, run.settings.get("likelihood._target_", "")])
