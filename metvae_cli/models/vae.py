"""The deep latent variable model p(z) p(x | z) and its encoder q(z | x)."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from metvae_cli.densities import Point
from metvae_cli.models.base import Likelihood, Prior, TrainedModel
from metvae_cli.models.joint import JointDensity
from metvae_cli.models.precision import decoded, in_precision
from metvae_cli.scores import LogDensity


class VAE(TrainedModel):
    """Prior, encoder, decoder and likelihood.

    Args:
        prior: p(z)
        encoder: x (B, *event) -> q(z | x)
        decoder: z (..., D) -> the likelihood's parameters
        likelihood: parameters -> p(x | z)
        cloned: keep a copy of what makes p(x, z), learned apart, for a chain to move on (arXiv 2106.15921). The model
            itself then gets no gradient through the chain

    network_dtype: of the matrix products of encoder and decoder while it is trained; None is that of their parameters
    """

    def __init__(
        self,
        prior: Prior,
        encoder: Callable[[Tensor], Distribution],
        decoder: Callable[[Tensor], Tensor],
        likelihood: Likelihood,
        *,
        cloned: bool = False,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.network_dtype: torch.dtype | None = None
        parts = cast("list[nn.Module]", [prior, decoder, likelihood])
        # A prior may use the encoder: the copy uses the same one.
        self.clone = copy.deepcopy(nn.ModuleList(parts), {id(encoder): encoder}) if cloned else None

    def posterior(self, x: Tensor) -> Distribution:
        """The encoder's q(z | x): batch shape (B,), event shape (D,)."""
        return in_precision(self.encoder, x, self.network_dtype)

    def decode(self, z: Tensor) -> Distribution:
        """p(x | z) for z (S, B, D)."""
        return self.likelihood(decoded(self.decoder, z[..., : self.prior.visible_dim], self.network_dtype))

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        """z (S, B, D) -> likelihood_weight * log p(x | z) + log p(z), (S, B), in nats: see `JointDensity`."""
        return JointDensity(self.prior, self.decoder, self.likelihood, x, likelihood_weight, self.network_dtype)

    def clone_joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        """`joint` of the copy.

        Raises:
            ValueError: the model keeps none
        """
        if self.clone is None:
            raise ValueError("cloned_decoder=true: this model keeps no copy of its decoder; build it with cloned=True")
        prior, decoder, likelihood = cast(Any, self.clone)
        return JointDensity(prior, decoder, likelihood, x, likelihood_weight, self.network_dtype)

    def inference_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of q(z | x)."""
        return cast(nn.Module, self.encoder).parameters()

    def generative_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of p(x, z)."""
        for part in (self.prior, self.decoder, self.likelihood):
            yield from cast(nn.Module, part).parameters()

    def terms(self, initial: Point, final: Point, likelihood_weight: float = 1.0) -> dict[str, Tensor]:
        """reconstruction: log p(x | z_K); kl: log q(z_0 | x) - log p(z_0)."""
        at_start = self.prior.log_prob(initial.z)
        at_end = at_start if final is initial else self.prior.log_prob(final.z)  # without a chain
        return {
            "reconstruction": (final.log_final - at_end).mean() / likelihood_weight,
            "kl": (initial.log_initial - at_start).mean(),
        }
