"""A density without data: q_0 and a target in the places of encoder and decoder.

Every objective and every sampler then works as it does for an auto-encoder. A datum carries nothing: a batch of B blank
rows stands for B independent repetitions, and log p(x) for log Z, the log-normalizer of the target.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from metvae_cli.densities import Point
from metvae_cli.models.base import TrainedModel
from metvae_cli.models.posteriors import FlowName, Head, raw_scale
from metvae_cli.scores import LogDensity


class Initial(nn.Module):
    """q_0: a Gaussian, under a flow where one is asked for.

    Args:
        latent_dim: D
        mean: of each coordinate, at the start
        scale: standard deviation of each coordinate, at the start
        learned: mean and scale are learned; a flow always is
        head: mean_field, or full: every covariance
        flow: on top of the Gaussian: none, realnvp, maf or iaf; see `Head`
        flow_layers, flow_hidden: see `Bijection`

    Raises:
        ValueError: a number is out of range
    """

    output: Tensor

    def __init__(
        self,
        latent_dim: int,
        mean: float = 0.0,
        scale: float = 1.0,
        learned: bool = True,
        head: Literal["mean_field", "full"] = "mean_field",
        flow: FlowName = "none",
        flow_layers: int = 2,
        flow_hidden: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        if not math.isfinite(mean):
            raise ValueError(f"mean={mean}: must be finite")
        if not 1e-4 <= scale < math.inf:
            raise ValueError(f"scale={scale}: must be finite and at least 0.0001")
        self.head = Head(latent_dim, head, flow=flow, flow_layers=flow_layers, flow_hidden=flow_hidden)
        output = torch.zeros(1, self.head.size)
        output[:, :latent_dim] = mean
        output[:, latent_dim : 2 * latent_dim] = raw_scale(scale)
        if learned:
            self.output = nn.Parameter(output)
        else:
            self.register_buffer("output", output)

    def forward(self, count: int) -> Distribution:
        """`count` equal copies: batch shape (count,), event shape (D,)."""
        return self.head(self.output.expand(count, -1))


class Inference(TrainedModel):
    """q_0 and the density to approximate.

    Args:
        initial: q_0
        log_prob: log-density of the target up to a constant, (..., D) -> (...)
    """

    def __init__(self, initial: Initial, log_prob: LogDensity) -> None:
        super().__init__()
        self.initial = initial
        self.log_prob = log_prob

    def posterior(self, x: Tensor) -> Distribution:
        """One q_0 per blank row."""
        return self.initial(len(x))

    def blank(self, count: int) -> Tensor:
        """Blank rows, (count, 1), where the model is."""
        return self.initial.output.new_zeros(count, 1)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        """The target; a weight other than 1 multiplies its log-density."""
        del x
        if likelihood_weight == 1.0:
            return self.log_prob
        return lambda z: likelihood_weight * self.log_prob(z)

    def inference_parameters(self) -> Iterator[nn.Parameter]:
        """Those of q_0."""
        return self.initial.parameters()

    def generative_parameters(self) -> Iterator[nn.Parameter]:
        """None: the target is what it is."""
        return iter(())

    def terms(self, initial: Point, final: Point, likelihood_weight: float = 1.0) -> dict[str, Tensor]:
        """log_target: of the target at z_K; log_initial: log q_0(z_0)."""
        return {
            "log_target": final.log_final.mean() / likelihood_weight,
            "log_initial": initial.log_initial.mean(),
        }
