"""A study in its data base: what was tried, what came out, and what to try next."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from metvae_cli.errors import ConfigError
from metvae_cli.search.settings import SearchSettings
from metvae_cli.search.space import Parameter

Existing = Literal["refused", "allowed", "required"]
Outcome = Literal["complete", "pruned", "failed"]

_DIRECTORY = "directory"
_LOCKED_SECONDS = 60  # how long one process waits for another that writes to the same SQLite file
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
_ENOUGH_TO_WEIGH = 10  # complete trials; importances from fewer are noise


class Proposed(NamedTuple):
    """A trial to run.

    number: from 0
    values: of each key
    directory: of its job, where that is known
    """

    number: int
    values: Mapping[str, Any]
    directory: str | None


class Search:
    """A study, and the keys that it searches.

    A trial's values depend on the seed, its number, and how those before it ended: on nothing that dies with a process.

    Args:
        address: of the data base
        settings: how it is searched
        space: what is searched
        existing: what to make of a study that is there already

    Raises:
        ConfigError: the data base cannot be opened, or has such a study or none
    """

    def __init__(self, address: str, settings: SearchSettings, space: Sequence[Parameter], existing: Existing) -> None:
        self.settings = settings
        self._space = tuple(space)
        self._study = open_study(address, settings, existing)

    def __len__(self) -> int:
        return len(self._study.get_trials(deepcopy=False))

    def propose(self) -> Proposed:
        """A new trial."""
        with quiet():
            self._study.sampler = make_sampler(self.settings, len(self))
            trial = self._study.ask()
            return Proposed(trial.number, self._values(trial), None)

    def begun(self) -> list[Proposed]:
        """The trials of which it has not been told how they ended, by number."""
        with quiet():
            running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            directories = [found.user_attrs.get(_DIRECTORY) for found in running]
            numbers = [found.number for found in running]
            return [
                Proposed(number, self._values(self._trial(number)), directory)
                for number, directory in zip(numbers, directories, strict=True)
            ]

    def place(self, number: int, directory: str) -> None:
        """Write down where the job of a trial is."""
        with quiet():
            self._trial(number).set_user_attr(_DIRECTORY, directory)

    def tell(self, number: int, outcome: Outcome, value: float | None = None) -> None:
        """How a trial ended. value: of one that is complete"""
        with quiet():
            self._study.tell(number, value if outcome == "complete" else None, state=_STATES[outcome])

    def best(self) -> tuple[str, Mapping[str, Any], float] | None:
        """Directory, values and result of the best complete trial; None if none is."""
        complete = self._complete()
        if not complete:
            return None
        best = max(complete, key=lambda trial: (trial.value or 0.0, -trial.number))
        return best.user_attrs.get(_DIRECTORY, ""), best.params, best.value or 0.0

    def importances(self) -> dict[str, float]:
        """The share that each key has in what the complete trials tell, the largest first; empty where it is little."""
        complete = self._complete()
        if len(self._space) < 2 or len(complete) < _ENOUGH_TO_WEIGH or len({trial.value for trial in complete}) < 2:
            return {}
        with quiet():
            return optuna.importance.get_param_importances(self._study)

    def _values(self, trial: Trial) -> dict[str, Any]:
        """The trial's values; those that a process that was killed had not come to are drawn now."""
        return {parameter.key: parameter.suggest(trial) for parameter in self._space}

    def _trial(self, number: int) -> Trial:
        # A sampler of its own for each trial: the state of one for all of them would die with the process.
        self._study.sampler = make_sampler(self.settings, number)
        return Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)

    def _complete(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def open_study(address: str, settings: SearchSettings, existing: Existing) -> Study:
    """The study in a data base.

    Raises:
        ConfigError: it cannot be opened, or has such a study or none
    """
    name, pruner = settings.study_name, make_pruner(settings)
    connect = {"connect_args": {"timeout": _LOCKED_SECONDS}} if address.startswith("sqlite") else None
    try:
        with quiet():
            storage = optuna.storages.RDBStorage(address, engine_kwargs=connect)
            if existing == "required":
                return optuna.load_study(storage=storage, study_name=name, pruner=pruner)
            return optuna.create_study(
                storage=storage,
                study_name=name,
                pruner=pruner,
                direction="maximize",
                load_if_exists=existing == "allowed",
            )
    except optuna.exceptions.DuplicatedStudyError:
        raise ConfigError(f"hydra.sweeper.study_name={name}: {address} has it already; choose another name") from None
    except KeyError:
        raise ConfigError(f"hydra.sweeper.study_name={name}: {address} has no such study; put it back") from None
    except Exception as error:  # each kind of data base has errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"hydra.sweeper.storage={address}: cannot be opened ({reason})") from error


def make_sampler(settings: SearchSettings, number: int) -> BaseSampler:
    """What proposes the values of a trial."""
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    if settings.sampler == "random":
        return RandomSampler(seed)
    # The constant liar counts trials that still run as poor ones, so that those beside them look elsewhere.
    return TPESampler(n_startup_trials=settings.n_startup_trials, seed=seed, constant_liar=True)


def make_pruner(settings: SearchSettings) -> BasePruner:
    """What stops runs; steps are epochs."""
    if settings.pruner == "median":
        return MedianPruner(n_startup_trials=settings.n_startup_trials, n_warmup_steps=settings.prune_after)
    if settings.pruner == "hyperband":
        return HyperbandPruner(min_resource=settings.prune_after)
    return NopPruner()


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Optuna says nothing of its own: what went wrong is raised, and what goes well is in our table."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
