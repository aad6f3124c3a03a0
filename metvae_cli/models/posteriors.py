"""What an encoder's network ends in: from its output to the distribution q(z | x).

| head | q(z | x) | numbers per datum |
| mean_field | N(mean, diag(scale^2)) | 2 D |
| full | N(mean, L L^T), L lower triangular | D + D (D + 1) / 2 |
| low_rank | N(mean, F F^T + diag(scale^2)), F (D, rank) | 2 D + D rank |

A flow on top carries the Gaussian's draw on: z = T(e; mean, scale), e ~ the head's Gaussian.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, LowRankMultivariateNormal, MultivariateNormal
from torch.nn.functional import softplus

from metvae_cli.bijections import Bijection
from metvae_cli.gaussians import DiagonalGaussian
from metvae_cli.models.held import as_built
from metvae_cli.models.precision import as_density

HeadName = Literal["mean_field", "full", "low_rank"]
FlowName = Literal["none", "realnvp", "maf", "iaf"]
# softplus(raw + this) is 1 at raw = 0, so q(z | x) starts near the prior
_UNIT_SCALE = math.log(math.e - 1)
_SMALLEST_SCALE = 1e-6


def positive(raw: Tensor) -> Tensor:
    """A scale, 1 at raw = 0."""
    return softplus(raw + _UNIT_SCALE) + _SMALLEST_SCALE


def raw_scale(scale: float) -> float:
    """What `positive` turns into a scale: its inverse."""
    value = scale - _SMALLEST_SCALE
    return value + math.log(-math.expm1(-value)) - _UNIT_SCALE


def mean_field_gaussian(output: Tensor) -> DiagonalGaussian:
    """A network's output (..., 2 D), the means beside the raw scales -> distribution over (D,), batch shape (...,)."""
    mean, raw = output.chunk(2, -1)
    return DiagonalGaussian(mean, positive(raw))


def full_gaussian(output: Tensor, latent_dim: int) -> MultivariateNormal:
    """(B, D + D (D + 1) / 2): means, the diagonal of the Cholesky factor before `positive`, and what lies below it."""
    below = latent_dim * (latent_dim - 1) // 2
    mean, raw, rest = output.split([latent_dim, latent_dim, below], -1)
    rows, columns = torch.tril_indices(latent_dim, latent_dim, -1, device=output.device)
    strict = output.new_zeros(len(output), latent_dim, latent_dim)
    every = torch.arange(len(output), device=output.device)[:, None]
    strict = strict.index_put((every, rows, columns), rest)
    return MultivariateNormal(mean, scale_tril=torch.diag_embed(positive(raw)) + strict, validate_args=False)


class FlowPosterior(Distribution):
    """z = T(e; x), e ~ a Gaussian; batch shape (B,), event shape (D,).

    `mean` and `stddev` are T of the Gaussian's mean, and the Gaussian's own: coordinates for moves and what a proposal
    is told of x, for which they need not be exact. Built under `torch.no_grad`, it holds T's parameters fixed.

    Args:
        base: the Gaussian
        bijection: T
        from_noise: T's fast direction leads from e to z (`iaf`, `realnvp`); otherwise from z to e (`maf`)
    """

    has_rsample = True

    def __init__(self, base: Distribution, bijection: Bijection, *, from_noise: bool) -> None:
        self.base = base
        self.context = torch.cat([base.mean, base.stddev.log()], -1)
        ahead, back = as_built(bijection), as_built(bijection, "inverse")
        self._forward, self._inverse = (ahead, back) if from_noise else (back, ahead)
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(B, D)."""
        return self._forward(self.base.mean, self.context)[0]

    @property
    def stddev(self) -> Tensor:
        """(B, D)."""
        return self.base.stddev

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(*sample_shape, B, D)."""
        return self._forward(self.base.rsample(torch.Size(sample_shape)), self.context)[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., B, D) -> (..., B). T is undone: what led to a draw is not remembered, since a score is wanted there."""
        batch = torch.broadcast_shapes(value.shape[:-1], self.base.batch_shape)  # a flow wants all rows of its context
        noise, log_det = self._inverse(value.expand(*batch, -1), self.context)
        return self.base.log_prob(noise) + log_det


class Head(nn.Module):
    """From the output of an encoder's network, (B, size), to q(z | x).

    Args:
        latent_dim: D
        head: see the module's head
        rank: of `low_rank`
        flow: on top, told the Gaussian's mean and scale: `realnvp`; `iaf` (fast draws; its density takes D passes);
            `maf` (the other way round: a chain asks for densities more often than for draws)
        flow_layers, flow_hidden: see `Bijection`

    Raises:
        ValueError: a number is out of range
    """

    def __init__(
        self,
        latent_dim: int,
        head: HeadName = "mean_field",
        rank: int = 2,
        flow: FlowName = "none",
        flow_layers: int = 2,
        flow_hidden: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank}: must be at least 1")
        if flow_layers < 1:
            raise ValueError(f"flow_layers={flow_layers}: must be at least 1")
        self.latent_dim, self.head, self.rank = latent_dim, head, rank
        extra = {"mean_field": 0, "full": latent_dim * (latent_dim - 1) // 2, "low_rank": latent_dim * rank}
        self.size = 2 * latent_dim + extra[head]
        self.from_noise = flow != "maf"
        kind = "realnvp" if flow == "realnvp" else "autoregressive"
        self.bijection = (
            None if flow == "none" else Bijection(latent_dim, 2 * latent_dim, kind, flow_layers, flow_hidden)
        )

    def forward(self, output: Tensor) -> Distribution:
        """(B, size) -> distribution with batch shape (B,) and event shape (D,)."""
        base = as_density(self._gaussian, output)
        return base if self.bijection is None else FlowPosterior(base, self.bijection, from_noise=self.from_noise)

    def _gaussian(self, output: Tensor) -> Distribution:
        if self.head == "mean_field":
            return mean_field_gaussian(output)
        if self.head == "full":
            return full_gaussian(output, self.latent_dim)
        mean, raw, factor = output.split([self.latent_dim, self.latent_dim, self.latent_dim * self.rank], -1)
        spread = factor.unflatten(-1, (self.latent_dim, self.rank))
        return LowRankMultivariateNormal(mean, spread, positive(raw).square(), validate_args=False)
