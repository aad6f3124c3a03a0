"""What an objective is and what it returns."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from metvae_cli.densities import Point
from metvae_cli.kernels.adaptation import Adaptation, Outcome
from metvae_cli.kernels.base import StepInfo
from metvae_cli.samplers.chain import Sampler
from metvae_cli.scores import LogDensity


class Posterior(Protocol):
    """The encoder's distribution q(z | x) of a batch."""

    @property
    def mean(self) -> Tensor:
        """(B, D)."""
        ...

    @property
    def stddev(self) -> Tensor:
        """(B, D)."""
        ...

    def rsample(self, sample_shape: tuple[int, ...]) -> Tensor:
        """Reparameterised draws, (S, B, D) for sample_shape (S,)."""
        ...

    def log_prob(self, value: Tensor, /) -> Tensor:
        """(S, B, D) -> (S, B)."""
        ...


class Model(Protocol):
    """What an objective needs of a model."""

    def posterior(self, x: Tensor) -> Posterior:
        """q(z | x) of a batch (B, *event)."""
        ...

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        """z (S, B, D) -> likelihood_weight * log p(x | z) + log p(z), (S, B)."""
        ...


@runtime_checkable
class SplitModel(Protocol):
    """A model whose encoder and decoder can be told apart."""

    def inference_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of q(z | x)."""
        ...

    def generative_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of p(x, z)."""
        ...


@runtime_checkable
class ClonedModel(Protocol):
    """A model that keeps a copy of its decoder for a chain to move on."""

    def clone_joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        """`Model.joint` of the copy."""
        ...


class ObjectiveOutput(NamedTuple):
    """loss: () what autograd differentiates; its value is the negative bound, its gradient what training follows.

    score_loss: () the part of the loss whose gradient is the score-function term, or None where nothing is decided
    bound: (B,) the number that the paper reports, in nats per datum
    log_weights: (S, B), detached
    initial, final: the ends of the chain, detached
    info: one record per step, (K, S, B)
    evaluations: latent vectors decoded
    score_moments, credit: for adaptations, see `kernels.adaptation.Outcome`
    """

    loss: Tensor
    score_loss: Tensor | None
    bound: Tensor
    log_weights: Tensor
    initial: Point
    final: Point
    info: StepInfo
    evaluations: int
    score_moments: Tensor | None = None
    credit: Tensor | None = None

    @property
    def outcome(self) -> Outcome:
        """What adaptations are told."""
        return Outcome(self.info.metropolis_prob, self.final.z, self.score_moments, self.credit)


class Objective(Protocol):
    """Something to maximise.

    adaptations: what of it changes with training batches and not by a gradient
    """

    num_samples: int
    adaptations: Sequence[Adaptation]

    def validate(self, sampler: Sampler) -> list[str]:
        """Refuse an unsound or pointless combination; return notes about sound ones worth a word.

        Raises:
            ValueError: with the remedy
        """
        ...

    def __call__(self, model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float = 1.0) -> ObjectiveOutput:
        """Evaluate on a batch (B, *event). Under `torch.no_grad()` only values are computed."""
        ...
