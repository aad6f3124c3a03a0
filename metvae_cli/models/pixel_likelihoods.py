"""Likelihoods of 8-bit grey levels, x = k / 255 with k = 0, ..., 255: masses, in nats per datum."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid

from metvae_cli.models.likelihoods import doubled
from metvae_cli.models.posteriors import positive

LEVELS = 256
_SMALLEST_SCALE = 1e-3


class DiscretizedLogistic(Distribution):
    """The mass that a logistic distribution puts on the bin of each level; the outer bins are open.

    Args:
        mean, scale: of the logistic, (S, B, *event)
    """

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        self.location, self.scale = mean, scale
        super().__init__(mean.shape[:2], mean.shape[2:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., B, *event) -> (S, B)."""
        half = 0.5 / (LEVELS - 1)
        above, below = (value + half - self.location) / self.scale, (value - half - self.location) / self.scale
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)); the difference a - b needs no subtraction.
        width = (2 * half / self.scale).expand_as(above)
        inside = logsigmoid(above) + logsigmoid(-below) + torch.log(-torch.expm1(-width))
        first = torch.where(value < half, logsigmoid(above), inside)
        return torch.where(value > 1 - half, logsigmoid(-below), first).flatten(2).sum(-1)

    @property
    def mean(self) -> Tensor:
        """(S, B, *event): the sum of P(x > k / 255) over k, divided by 255."""
        edges = (torch.arange(LEVELS - 1, device=self.location.device) + 0.5) / (LEVELS - 1)
        total = torch.zeros_like(self.location)
        for edge in edges:
            total = total + torch.sigmoid((self.location - edge) / self.scale)
        return total / (LEVELS - 1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(*sample_shape, S, B, *event)."""
        u = torch.rand(*sample_shape, *self.location.shape, device=self.location.device).clamp(1e-6, 1 - 1e-6)
        drawn = self.location + self.scale * torch.logit(u)
        return (drawn.clamp(0, 1) * (LEVELS - 1)).round() / (LEVELS - 1)


class DiscretizedLogisticLikelihood(nn.Module):
    """Each level from a logistic distribution around the sigmoid of the decoder's output (Kingma et al. 2016).

    Args:
        scale: of the logistic, or its starting value
        learn_scale: one learned scale for all values
        predict_scale: the decoder gives a scale for each value, as a multiple of `scale`

    Raises:
        ValueError: scale is not positive and finite, or two options contradict each other
    """

    supports: tuple[str, ...] = ("levels",)
    is_discrete = True
    log_scale: Tensor

    def __init__(self, scale: float = 0.1, learn_scale: bool = True, predict_scale: bool = False) -> None:
        super().__init__()
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale={scale}: must be a positive finite number")
        if learn_scale and predict_scale:
            raise ValueError("predict_scale=true: the decoder gives the scales; set learn_scale=false")
        self.predict_scale = predict_scale
        value = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(value)
        else:
            self.register_buffer("log_scale", value)

    def parameter_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """One number per value, or two."""
        return doubled(event_shape) if self.predict_scale else tuple(event_shape)

    def forward(self, parameters: Tensor) -> DiscretizedLogistic:
        """(S, B, *parameter_shape) -> distribution over events."""
        scale = self.log_scale.exp()
        if self.predict_scale:
            parameters, raw = parameters.chunk(2, 2)
            scale = scale * positive(raw)
        return DiscretizedLogistic(torch.sigmoid(parameters), scale + _SMALLEST_SCALE)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), (S, B), from parameters (S, B, *parameter_shape) and x (B, *event)."""
        return self(parameters).log_prob(x)


class CategoricalLevels(Distribution):
    """Independent levels with a probability each.

    Args:
        logits: (S, B, 256, *event)
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape[:2], logits.shape[3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, *event) -> (S, B)."""
        index = (value * (LEVELS - 1)).round().long()
        chosen = self.logits.gather(2, index.expand(self.logits.shape[0], *index.shape)[:, :, None])[:, :, 0]
        return (chosen - self.logits.logsumexp(2)).flatten(2).sum(-1)

    @property
    def mean(self) -> Tensor:
        """(S, B, *event)."""
        levels = torch.arange(LEVELS, device=self.logits.device) / (LEVELS - 1)
        return torch.einsum("sbk...,k->sb...", self.logits.softmax(2), levels.to(self.logits))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(*sample_shape, S, B, *event)."""
        chances = self.logits.softmax(2).movedim(2, -1)
        count = math.prod(sample_shape)
        drawn = torch.multinomial(chances.reshape(-1, LEVELS), count, replacement=True)
        return drawn.T.reshape(*sample_shape, *chances.shape[:-1]) / (LEVELS - 1)


class CategoricalLikelihood(nn.Module):
    """A probability for each of the 256 levels of each value; the decoder gives 256 times as many logits."""

    supports: tuple[str, ...] = ("levels",)
    is_discrete = True

    def parameter_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """256 logits per value: 256 times the channels."""
        return (LEVELS * event_shape[0], *event_shape[1:])

    def forward(self, parameters: Tensor) -> CategoricalLevels:
        """(S, B, 256 C, ...) -> distribution over events (C, ...)."""
        return CategoricalLevels(parameters.unflatten(2, (LEVELS, -1)))

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), (S, B), from logits (S, B, 256 C, ...) and x (B, C, ...)."""
        return self(parameters).log_prob(x)
