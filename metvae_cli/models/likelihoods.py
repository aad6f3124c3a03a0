"""Likelihoods p(x | z): from the decoder's output to a distribution over data.

supports: of which data it is a model (`data.base.Support`). is_discrete: its log-probabilities are of masses, not of
densities, so that nats per datum are bits per dimension times D log 2 as they stand.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, ContinuousBernoulli, Distribution, Independent, Normal, Poisson

from metvae_cli.models.posteriors import positive


class ElementwiseLikelihood(ABC):
    """A likelihood without parameters of its own whose entries each see one number of the decoder's."""

    @abstractmethod
    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), (S, B), from parameters (S, B, *event) and x (B, *event)."""

    @abstractmethod
    def slope(self, parameters: Tensor, x: Tensor) -> Tensor:
        """The derivative of `log_prob` in each parameter, (S, B, *event)."""

    @abstractmethod
    def curvature(self, slope: Tensor, x: Tensor) -> Tensor:
        """The second derivative in each parameter, where the first one is `slope`; (S, B, *event)."""


class BernoulliLikelihood(nn.Module, ElementwiseLikelihood):
    """Independent Bernoulli pixels; the decoder gives logits. Data are 0 or 1."""

    supports: tuple[str, ...] = ("binary",)
    is_discrete = True

    def parameter_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """One logit per pixel."""
        return tuple(event_shape)

    def forward(self, parameters: Tensor) -> Distribution:
        """(..., *event) logits -> distribution over events."""
        pixels = Bernoulli(logits=parameters, validate_args=False)
        return Independent(pixels, parameters.dim() - 2, validate_args=False)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), (S, B), from logits (S, B, *event) and x (B, *event): x l - log(1 + e^l), summed."""
        # One fused operation: a seventh of the time of a differentiated score less than a product and a softplus.
        losses = nn.functional.binary_cross_entropy_with_logits(parameters, x.expand_as(parameters), reduction="none")
        return -losses.flatten(2).sum(-1)

    def slope(self, parameters: Tensor, x: Tensor) -> Tensor:
        """d log p / d l = x - sigmoid(l), (S, B, *event)."""
        return x - torch.sigmoid(parameters)

    def curvature(self, slope: Tensor, x: Tensor) -> Tensor:
        """The second derivative, -sigmoid(l) (1 - sigmoid(l)), from the first one."""
        mean = x - slope
        return mean * (mean - 1)


class ContinuousBernoulliLikelihood(nn.Module):
    """Independent continuous Bernoulli values in [0, 1] (Loaiza-Ganem and Cunningham 2019), from logits."""

    supports: tuple[str, ...] = ("levels", "unit")
    is_discrete = False

    def parameter_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """One logit per value."""
        return tuple(event_shape)

    def forward(self, parameters: Tensor) -> Distribution:
        """(..., *event) logits -> distribution over events."""
        values = ContinuousBernoulli(logits=parameters, validate_args=False)
        return Independent(values, parameters.dim() - 2, validate_args=False)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), (S, B): x l - log(1 + e^l) + log(l / tanh(l / 2)), summed."""
        logits = parameters.flatten(2)
        return _chosen(parameters, x) + (log_constant(logits) - nn.functional.softplus(logits)).sum(-1)


def log_constant(logits: Tensor) -> Tensor:
    """log(l / tanh(l / 2)), which is log 2 + l^2 / 12 - 7 l^4 / 1440 near 0; smooth in l."""
    small = logits.abs() < 0.5
    near = torch.where(small, logits, torch.zeros_like(logits)).square()
    far = torch.where(small, torch.ones_like(logits), logits).abs()
    # Terms of the series up to l^8: below 1e-8 of error at 1/2.
    series = near / 12 - 7 * near**2 / 1440 + 31 * near**3 / 90720 - 127 * near**4 / 4838400
    return torch.where(small, math.log(2) + series, far.log() - (far / 2).tanh().log())


class GaussianLikelihood(nn.Module):
    """Independent Gaussian values around the decoder's output, with one scale for all or one for each value.

    Args:
        scale: standard deviation, or its starting value
        learn_scale: learn it
        predict_scale: the decoder gives a scale for each value, as a multiple of `scale`, beside the mean
        smallest: least predicted scale; without one, a likelihood of densities has no maximum

    Raises:
        ValueError: a number is out of range, or two options contradict each other
    """

    supports: tuple[str, ...] = ("levels", "unit", "real")
    is_discrete = False
    log_scale: Tensor

    def __init__(
        self, scale: float = 1.0, learn_scale: bool = False, predict_scale: bool = False, smallest: float = 0.01
    ) -> None:
        super().__init__()
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale={scale}: must be a positive finite number")
        if not (smallest > 0 and math.isfinite(smallest)):
            raise ValueError(f"smallest={smallest}: must be a positive finite number")
        if learn_scale and predict_scale:
            raise ValueError("predict_scale=true: the decoder gives the scales; set learn_scale=false")
        self.predict_scale, self.smallest = predict_scale, smallest
        value = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(value)
        else:
            self.register_buffer("log_scale", value)

    def parameter_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """One mean per value, and as many scales if they are predicted: twice the channels."""
        return doubled(event_shape) if self.predict_scale else tuple(event_shape)

    def forward(self, parameters: Tensor) -> Distribution:
        """(..., *parameter_shape) -> distribution over events."""
        mean, log_scale = self._split(parameters)
        values = Normal(mean, log_scale.exp(), validate_args=False)
        return Independent(values, mean.dim() - 2, validate_args=False)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), (S, B), from parameters (S, B, *parameter_shape) and x (B, *event)."""
        mean, log_scale = self._split(parameters)
        error = ((x - mean) / log_scale.exp()).flatten(2)
        size = error.shape[-1]
        log_scales = log_scale.flatten(2).sum(-1) if self.predict_scale else size * log_scale
        return -0.5 * error.square().sum(-1) - log_scales - 0.5 * size * math.log(2 * math.pi)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Means and the logarithms of scales."""
        if not self.predict_scale:
            return parameters, self.log_scale
        mean, raw = parameters.chunk(2, 2)
        return mean, (self.log_scale.exp() * positive(raw) + self.smallest).log()


class PoissonLikelihood(nn.Module):
    """Independent Poisson counts; the decoder gives the logarithms of the rates."""

    supports: tuple[str, ...] = ("counts",)
    is_discrete = True

    def parameter_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """One log-rate per count."""
        return tuple(event_shape)

    def forward(self, parameters: Tensor) -> Distribution:
        """(..., *event) log-rates -> distribution over events."""
        return Independent(Poisson(parameters.exp(), validate_args=False), parameters.dim() - 2, validate_args=False)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), (S, B): x l - e^l - log x!, summed."""
        constant = torch.lgamma(x + 1).flatten(1).sum(-1)
        return _chosen(parameters, x) - parameters.exp().flatten(2).sum(-1) - constant


def doubled(event_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of two numbers per value: twice as many channels."""
    return (2 * event_shape[0], *event_shape[1:])


def _chosen(parameters: Tensor, x: Tensor) -> Tensor:
    """Sum of x times the parameters, (S, B)."""
    # A batched matrix product: no (S, B, pixels) intermediate is kept for the backward pass.
    return torch.einsum("sbp,bp->sb", parameters.flatten(2), x.flatten(1))
