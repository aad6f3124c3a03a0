"""log p(x, z) = log p(x | z) + log p(z) of a batch, and its score in z."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from metvae_cli.models.base import Likelihood, Prior
from metvae_cli.models.perceptron_score import closed_form
from metvae_cli.models.precision import decoded
from metvae_cli.scores import ScoredDensity, value_and_score


class JointDensity(ScoredDensity):
    """z (S, B, D) -> likelihood_weight * log p(x | z) + log p(z), (S, B), in nats.

    A weight other than 1 is for the warm-up of the Kullback-Leibler term: it stands for 1 / (weight of that term).

    Args:
        prior, decoder, likelihood: of the model
        x: (B, *event)
        likelihood_weight: of log p(x | z)
        dtype: of the decoder's matrix products; None is that of its parameters
    """

    def __init__(
        self,
        prior: Prior,
        decoder: Callable[[Tensor], Tensor],
        likelihood: Likelihood,
        x: Tensor,
        likelihood_weight: float = 1.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.log_prior, self.visible_dim = prior.density(), prior.visible_dim
        self.decoder, self.likelihood, self.x = decoder, likelihood, x
        self.likelihood_weight = likelihood_weight
        self.dtype = dtype
        self._closed = None if dtype is not None or x.requires_grad else closed_form(decoder, likelihood)

    def __call__(self, z: Tensor) -> Tensor:
        """The value."""
        return self._weighted(self._log_likelihood(z)) + self.log_prior(z)

    def with_score(self, z: Tensor, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """The value, (S, B), and its gradient in z, (S, B, D)."""
        graph = torch.is_grad_enabled()
        again = graph and differentiable
        log_likelihood, likelihood_score = self._log_likelihood_and_score(z, graph, again)
        log_prior, prior_score = value_and_score(self.log_prior, z, create_graph=graph, differentiable=again)
        return self._weighted(log_likelihood) + log_prior, self._weighted(likelihood_score) + prior_score

    def _log_likelihood(self, z: Tensor) -> Tensor:
        return self.likelihood.log_prob(decoded(self.decoder, z[..., : self.visible_dim], self.dtype), self.x)

    def _log_likelihood_and_score(self, z: Tensor, graph: bool, again: bool) -> tuple[Tensor, Tensor]:
        if self._closed is None:
            return value_and_score(self._log_likelihood, z, create_graph=graph, differentiable=again)
        value, score = self._closed(z[..., : self.visible_dim], self.x)
        hidden = z.shape[-1] - self.visible_dim
        return value, pad(score, (0, hidden)) if hidden else score

    def _weighted(self, term: Tensor) -> Tensor:
        return term if self.likelihood_weight == 1.0 else self.likelihood_weight * term
