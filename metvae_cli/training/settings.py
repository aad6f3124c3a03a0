"""What a user may say about training; the keys of `configs/trainer/*.yaml`."""

import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal, NamedTuple

from metvae_cli.training.device import DeviceName

Strategy = Literal["ddp"]
Precision = Literal["32-true", "bf16-mixed"]
Replicas = Annotated[int, "a whole number of at least 1"]


class Weights(NamedTuple):
    """What an iteration makes of its loss.

    kl, score: weights of the Kullback-Leibler and of the score-function term
    trains_model: whether prior, decoder and likelihood are trained too
    logs: whether scalars follow it
    """

    kl: float
    score: float
    trains_model: bool
    logs: bool


@dataclass(frozen=True)
class TrainerSettings:
    """Limits, intervals and safety of a training run.

    Args:
        device: auto, cpu, cuda, cuda:N or mps
        max_epochs: passes over the training data
        max_iterations: optimizer steps, or null
        max_seconds: wall time of training, over all resumes, or null
        max_decoder_evaluations: latent vectors decoded in training, or null
        patience: stop after so many validations without a better bound, or null
        clip_norm: largest gradient norm, or null
        kl_warmup_epochs: the weight of the Kullback-Leibler term rises linearly to 1 over so many epochs; 0 is off
        score_warmup_epochs: the weight of the score-function term rises from 0 in the first epoch to 1 after so many
            (biased until then); 0 is off
        inference_iterations: iterations that leave prior, decoder and likelihood as they are, before each one that
            trains everything
        log_every: iterations between scalars in TensorBoard
        validate_every: epochs between validations
        picture_every: epochs between pictures in TensorBoard; 0 is only at the end
        checkpoint_seconds: a checkpoint at least so often, besides one per epoch
        test_samples: importance samples per test datum
        test_data: largest number of test data (a seeded choice), or null for all
        max_bad_steps: consecutive steps with a non-finite loss or gradient that end the run
        threads: CPU threads; null is one for a small model, torch's choice for others
        devices: processes on each machine, each with a device, or a share of the cores, and a share of each batch
        num_nodes: machines
        strategy: how processes train together: ddp, each with the whole model
        precision: 32-true, or bf16-mixed: networks compute in bfloat16, densities and weights stay in single precision
        checkpoint_chain: keep no graph of a step of the chain for the backward pass, but compute it again there: memory
            does not grow with the steps, for one more pass of the chain
        replicas: runs that are trained side by side, as one program: of this configuration with as many seeds
        profile: measure which operations a few iterations spend their time on

    Raises:
        ValueError: a number is out of range
    """

    device: DeviceName = "auto"
    max_epochs: int = 100
    max_iterations: int | None = None
    max_seconds: float | None = None
    max_decoder_evaluations: int | None = None
    patience: int | None = None
    clip_norm: float | None = 50.0
    kl_warmup_epochs: int = 0
    score_warmup_epochs: int = 0
    inference_iterations: int = 0
    log_every: int = 20
    validate_every: int = 1
    picture_every: int = 25
    checkpoint_seconds: float = 60.0
    test_samples: int = 1000
    test_data: int | None = None
    max_bad_steps: int = 20
    threads: int | None = None
    devices: int = 1
    num_nodes: int = 1
    strategy: Strategy = "ddp"
    precision: Precision = "32-true"
    checkpoint_chain: bool = False
    replicas: Replicas = 1
    profile: bool = False

    def __post_init__(self) -> None:
        zero_allowed = {
            "kl_warmup_epochs",
            "score_warmup_epochs",
            "inference_iterations",
            "picture_every",
            "checkpoint_seconds",
        }
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or isinstance(value, str | bool):
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name not in zero_allowed):
                least = "0 or more" if field.name in zero_allowed else "positive"
                allowed = "a whole number of at least 1" if field.name == "replicas" else f"{least} and finite"
                raise ValueError(f"{field.name}={value}: must be {allowed}")
        if self.replicas > 1:
            self._refuse_beside_replicas()

    def _refuse_beside_replicas(self) -> None:
        """Raise ValueError where something is asked for that runs side by side cannot do."""
        wanted = {"devices": 1, "num_nodes": 1, "precision": "32-true", "profile": False}
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"replicas={self.replicas}: runs side by side have one device, single precision and no profile; "
                    f"set trainer.{name}={str(value).lower()}, or trainer.replicas=1"
                )

    def weights(self, epoch: int, iteration: int) -> Weights:
        """Those of an iteration, counted from 0, in an epoch."""
        logs = (iteration + 1) % self.log_every == 0
        return Weights(self.kl_weight(epoch), self.score_weight(epoch), self.trains_model(iteration), logs)

    def kl_weight(self, epoch: int) -> float:
        """Weight of the Kullback-Leibler term in an epoch, in (0, 1]."""
        return min(1.0, (epoch + 1) / self.kl_warmup_epochs) if self.kl_warmup_epochs else 1.0

    def score_weight(self, epoch: int) -> float:
        """Weight of the score-function term in an epoch, in [0, 1]."""
        return min(1.0, epoch / self.score_warmup_epochs) if self.score_warmup_epochs else 1.0

    def trains_model(self, iteration: int) -> bool:
        """Whether this iteration, counted from 0, trains prior, decoder and likelihood too."""
        return iteration % (self.inference_iterations + 1) == self.inference_iterations
