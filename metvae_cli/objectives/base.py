"""What an objective is and what it returns."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from metvae_cli.densities import LogDensity, Point
from metvae_cli.kernels.base import StepInfo
from metvae_cli.samplers.chain import Sampler


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


class ObjectiveOutput(NamedTuple):
    """loss: () what autograd differentiates; its value is the negative bound, its gradient an unbiased estimate.

    score_loss: () the part of the loss whose gradient is the score-function term, or None where nothing is decided
    bound: (B,) the number that the paper reports, in nats per datum
    log_weights: (S, B), detached
    initial, final: the ends of the chain, detached
    info: one record per step, (K, S, B)
    evaluations: latent vectors decoded
    """

    loss: Tensor
    score_loss: Tensor | None
    bound: Tensor
    log_weights: Tensor
    initial: Point
    final: Point
    info: StepInfo
    evaluations: int


class Objective(Protocol):
    """Something to maximise."""

    num_samples: int

    def validate(self, sampler: Sampler) -> list[str]:
        """Refuse an unsound or pointless combination; return notes about sound ones worth a word.

        Raises:
            ValueError: with the remedy
        """
        ...

    def __call__(self, model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float = 1.0) -> ObjectiveOutput:
        """Evaluate on a batch (B, *event). Under `torch.no_grad()` only values are computed."""
        ...
