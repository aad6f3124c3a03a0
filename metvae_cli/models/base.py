"""What training needs of a model, whatever it is a model of."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn
from torch.distributions import Distribution

from metvae_cli.densities import LogDensity, Point


class TrainedModel(nn.Module, ABC):
    """q(z | x) and p(x, z), and which parameters are whose."""

    @abstractmethod
    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x) of a batch (B, *event): batch shape (B,), event shape (D,)."""

    @abstractmethod
    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        """z (S, B, D) -> likelihood_weight * log p(x | z) + log p(z), (S, B), in nats."""

    @abstractmethod
    def inference_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of q(z | x)."""

    @abstractmethod
    def generative_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of p(x, z)."""

    @abstractmethod
    def terms(self, initial: Point, final: Point, likelihood_weight: float = 1.0) -> dict[str, Tensor]:
        """What is worth a curve beside the bound, each (), in nats: read off both ends of the chains of a batch."""
