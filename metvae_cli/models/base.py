"""What training needs of a model, whatever it is a model of, and what an auto-encoder needs of its parts."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from metvae_cli.densities import Point
from metvae_cli.scores import LogDensity


class Prior(Protocol):
    """p(z). visible_dim: how many of the D coordinates, the first ones, the decoder sees."""

    visible_dim: int

    def density(self) -> LogDensity:
        """log p(z), (S, B, D) -> (S, B)."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """(S, B, D) -> (S, B)."""
        ...

    def sample(self, count: int, device: torch.device) -> Tensor:
        """(count, D)."""
        ...


class Likelihood(Protocol):
    """p(x | z) given the decoder's output."""

    supports: tuple[str, ...]
    is_discrete: bool

    def parameter_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the parameters of one datum."""
        ...

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """(S, B, *parameter_shape), (B, *event) -> (S, B)."""
        ...

    def __call__(self, parameters: Tensor) -> Distribution:
        """(S, B, *parameter_shape) -> distribution over data."""
        ...


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
