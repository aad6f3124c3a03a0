"""Whether a run is worth its time: asked by the run itself, in whichever process it is."""

import logging

import optuna
from optuna.study import Study
from optuna.trial import Trial

from metvae_cli.errors import ConfigError
from metvae_cli.search.settings import SearchSettings
from metvae_cli.search.study import open_study, quiet

log = logging.getLogger(__name__)

_PRUNED = "pruned"


class Pruning:
    """Tells the study how a trial comes along, and says whether it is to stop.

    Opens the data base when it is first asked. One that does not answer stops no run.

    Args:
        address: of the data base
        settings: how it is searched
        number: of the trial
    """

    def __init__(self, address: str, settings: SearchSettings, number: int) -> None:
        self._address, self._settings, self._number = address, settings, number
        self._study: Study | None = None

    def __call__(self, epoch: int, bound: float) -> bool:
        """Whether the trial with this validation bound after so many epochs is to stop."""
        try:
            with quiet():
                return self._ask(epoch, bound)
        except (ConfigError, optuna.exceptions.StorageInternalError) as error:
            log.warning("not pruned: the study does not answer (%s)", " ".join(str(error).split()))
            return False

    def _ask(self, epoch: int, bound: float) -> bool:
        if self._study is None:
            self._study = open_study(self._address, self._settings, "required")
        found = self._study.get_trials(deepcopy=False)[self._number]
        if found.user_attrs.get(_PRUNED):
            return True  # the run was killed after it had been told so
        trial = Trial(self._study, found._trial_id)
        if epoch not in found.intermediate_values:  # else it was killed after it had reported that
            trial.report(bound, epoch)
        # A pruner looks at epochs of its choice and tells by the last one reported: it may be asked twice.
        stop = trial.should_prune()
        if stop:
            trial.set_user_attr(_PRUNED, True)
        return stop
