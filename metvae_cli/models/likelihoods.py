"""Likelihoods p(x | z): from the decoder's output to a distribution over data."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal


class BernoulliLikelihood(nn.Module):
    """Independent Bernoulli pixels; the decoder gives logits. Data are 0 or 1."""

    supports: tuple[str, ...] = ("binary",)
    remedy = "set likelihood=gaussian, or dataset.binarization=dynamic for grey images"

    def parameter_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """One logit per pixel."""
        return tuple(event_shape)

    def forward(self, parameters: Tensor) -> Distribution:
        """(..., *event) logits -> distribution over events."""
        pixels = Bernoulli(logits=parameters, validate_args=False)
        return Independent(pixels, parameters.dim() - 2, validate_args=False)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), (S, B), from logits (S, B, *event) and x (B, *event): x l - log(1 + e^l), summed."""
        logits = parameters.flatten(2)
        # The product with x is a batched matrix product: no (S, B, pixels) intermediate is kept for the backward pass.
        chosen = torch.einsum("sbp,bp->sb", logits, x.flatten(1))
        return chosen - nn.functional.softplus(logits).sum(-1)


class GaussianLikelihood(nn.Module):
    """Independent Gaussian values around the decoder's output, with one scale for all.

    Args:
        scale: standard deviation, or its starting value
        learn_scale: learn it

    Raises:
        ValueError: scale is not positive and finite
    """

    supports: tuple[str, ...] = ("levels", "unit", "real")
    remedy = "set dataset.binarization=none, or likelihood=bernoulli for binary data"
    log_scale: Tensor

    def __init__(self, scale: float = 1.0, learn_scale: bool = False) -> None:
        super().__init__()
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale={scale}: must be a positive finite number")
        value = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(value)
        else:
            self.register_buffer("log_scale", value)

    def parameter_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """One mean per value."""
        return tuple(event_shape)

    def forward(self, parameters: Tensor) -> Distribution:
        """(..., *event) means -> distribution over events."""
        values = Normal(parameters, self.log_scale.exp(), validate_args=False)
        return Independent(values, parameters.dim() - 2, validate_args=False)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), (S, B), from means (S, B, *event) and x (B, *event)."""
        error = ((x - parameters) / self.log_scale.exp()).flatten(2)
        constant = self.log_scale + 0.5 * math.log(2 * math.pi)
        return -0.5 * error.square().sum(-1) - error.shape[-1] * constant
