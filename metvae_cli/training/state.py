"""What the training loop works on, where it stands, and where its numbers go."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor, optim
from torch.optim.lr_scheduler import LRScheduler

from metvae_cli.data.base import Dataset
from metvae_cli.errors import RunError
from metvae_cli.kernels.adaptation import Adaptation
from metvae_cli.models.base import TrainedModel
from metvae_cli.objectives.base import Objective
from metvae_cli.samplers.chain import Sampler
from metvae_cli.training.settings import TrainerSettings

M = TypeVar("M", bound=TrainedModel, covariant=True)


class Learner(NamedTuple, Generic[M]):
    """Everything that training changes or reads."""

    model: M
    sampler: Sampler
    objective: Objective
    dataset: Dataset
    batch_size: int
    optimizer: optim.Optimizer
    scheduler: LRScheduler
    adaptations: Sequence[Adaptation]


@dataclass
class State:
    """Where training stands: plain values only, saved with every checkpoint.

    run: id of the run, of those in a directory of their own
    epoch, batch: passes completed, and batches done in the present one
    iteration: optimizer steps; seconds: wall time over all resumes; evaluations: latent vectors decoded
    best_value, best_epoch: best validation bound so far
    validated_at: iteration of the last validation
    log_position: length of metrics.csv
    running, running_count: sums of the training metrics of the present epoch
    train_means: those of the last complete one
    """

    run: str = ""
    epoch: int = 0
    batch: int = 0
    iteration: int = 0
    seconds: float = 0.0
    evaluations: int = 0
    best_value: float = -math.inf
    best_epoch: float = 0.0
    validations_since_best: int = 0
    validated_at: int = -1
    bad_steps: int = 0
    consecutive_bad_steps: int = 0
    log_position: int = 0
    running: dict[str, float] = field(default_factory=dict)
    running_count: float = 0.0
    train_means: dict[str, float] = field(default_factory=dict)


def limit_reached(settings: TrainerSettings, state: State, seconds: float) -> str:
    """Name of the limit that a run has reached; empty if it has none."""
    if state.epoch >= settings.max_epochs:
        return "max_epochs"
    if settings.max_iterations is not None and state.iteration >= settings.max_iterations:
        return "max_iterations"
    if settings.max_seconds is not None and seconds >= settings.max_seconds:
        return "max_seconds"
    if settings.max_decoder_evaluations is not None and state.evaluations >= settings.max_decoder_evaluations:
        return "max_decoder_evaluations"
    if settings.patience is not None and state.validations_since_best >= settings.patience:
        return "patience"
    return ""


def require_good_steps(state: State, largest: int) -> None:
    """Raise RunError where `largest` consecutive steps were not finite."""
    if state.consecutive_bad_steps >= largest:
        raise RunError(
            f"{state.consecutive_bad_steps} consecutive steps had a loss or gradient that was not finite: "
            "lower optimizer.lr or sampler.step_size"
        )


def require_trained(state: State) -> None:
    """Raise RunError where no step was made, or no validation was finite."""
    if state.iteration and state.bad_steps == state.iteration:
        raise RunError(
            "no step was made: loss or gradient was never finite; are the data of the size that the likelihood "
            "expects (dataset.standardize=true for real values)? else lower optimizer.lr or sampler.step_size"
        )
    if not math.isfinite(state.best_value):
        raise RunError("the validation bound was never finite: lower optimizer.lr or sampler.step_size")


class Tracker(Protocol):
    """Where the numbers go."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Scalars at an iteration."""
        ...

    def log_weights(self, step: int, values: Tensor) -> None:
        """Log-weights (S, B) of a validation batch."""
        ...

    def row(self, values: dict[str, float]) -> None:
        """One row of metrics.csv."""
        ...

    def pictures(self, step: int) -> None:
        """Draw the pictures of the model as it is."""
        ...

    def progress(self, epoch: int, done: int, total: int) -> None:
        """Batches done in this epoch."""
        ...

    def position(self) -> int:
        """Length of metrics.csv in bytes."""
        ...
