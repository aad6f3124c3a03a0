"""What a search is asked to do: Hydra's words for it as settings, keys with their values, and words of every trial."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from metvae_cli.errors import ConfigError
from metvae_cli.schema import call
from metvae_cli.search.settings import SearchSettings, require_optuna

if TYPE_CHECKING:
    from metvae_cli.search.space import Parameter

_TARGET = f"{SearchSettings.__module__}.{SearchSettings.__qualname__}"
_COMMANDS = ("train", "infer")  # whose runs have a value that is to be large
_LOG = "log"


class SearchPlan(NamedTuple):
    """A search.

    settings: how
    words: of every trial, in their order; a parameter stands for its own
    """

    settings: SearchSettings
    words: "tuple[str | Parameter, ...]"

    @property
    def space(self) -> "list[Parameter]":
        """What is searched."""
        return [word for word in self.words if not isinstance(word, str)]

    def trial(self, values: Mapping[str, Any]) -> list[str]:
        """The words of a trial."""
        return [word if isinstance(word, str) else word.word(values[word.key]) for word in self.words]


def search_settings(sweeper: DictConfig) -> SearchSettings | None:
    """The search that Hydra's node `sweeper` describes; None where it describes another kind of sweep.

    Raises:
        ConfigError: an unknown key, a wrong type, or a number out of range
    """
    if sweeper.get("_target_") != _TARGET:
        return None
    node = cast(Mapping[str, Any], OmegaConf.to_container(sweeper, resolve=True))
    return call(SearchSettings, {key: value for key, value in node.items() if key != "_target_"}, "hydra.sweeper")


def plan_search(command: str, overrides: Sequence[Override], sweeper: DictConfig) -> SearchPlan | None:
    """The search that a command line asks for; None where it asks for another kind of sweep.

    Raises:
        ConfigError: it cannot be done
    """
    settings = search_settings(sweeper)
    if settings is None:
        if intervals := [override for override in overrides if override.is_interval_sweep()]:
            raise ConfigError(f"{intervals[0].input_line}: is for a search to choose from; add hydra/sweeper=optuna")
        return None
    if command not in _COMMANDS:
        raise ConfigError(f"hydra/sweeper=optuna: `metvae {command}` has nothing to search for; train and infer have")
    require_optuna("hydra/sweeper=optuna")
    own = [override for override in overrides if not override.is_hydra_override()]
    words = tuple(
        _parameter(override) if override.is_sweep_override() else str(override.input_line) for override in own
    )
    if all(isinstance(word, str) for word in words):
        raise ConfigError(
            "hydra/sweeper=optuna: nothing is left to search; give a key several values, like "
            "'optimizer.lr=tag(log, interval(1e-4,1e-2))' or sampler=hmc,langevin"
        )
    return SearchPlan(settings, words)


def _parameter(override: Override) -> "Parameter":
    """What is to be searched by one word of the command line. Raises ConfigError."""
    from metvae_cli.search import space

    key, word, sweep = override.get_key_element(), override.input_line, override.value()
    if key == "seed":
        raise ConfigError(f"{word}: the best seed is no finding; give one, and repeat the best trial with others")
    tags = getattr(sweep, "tags", set())
    ranged = isinstance(sweep, IntervalSweep | RangeSweep)
    if wrong := sorted(tags - {_LOG} if ranged else tags):
        raise ConfigError(f"{word}: tag {wrong[0]} says nothing here; tag(log, interval(...)) is a logarithmic scale")
    try:
        if isinstance(sweep, IntervalSweep):
            return space.interval(key, cast(float, sweep.start), cast(float, sweep.end), log=_LOG in tags)
        if isinstance(sweep, RangeSweep):
            values = cast(list[float], list(override.sweep_iterator()))
            return space.grid(key, values, cast(float, sweep.step), log=_LOG in tags)
        return space.choice(key, list(override.sweep_string_iterator()))
    except ValueError as error:
        raise ConfigError(f"{word}: {error}") from error
