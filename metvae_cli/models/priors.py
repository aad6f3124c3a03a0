"""Priors p(z) of one level. Each has an exact density and exact draws."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from metvae_cli.bijections import Bijection
from metvae_cli.gaussians import StandardNormalDensity, standard_normal
from metvae_cli.scores import LogDensity


class Prior(nn.Module, ABC):
    """p(z). visible_dim: how many of the D coordinates, the first ones, the decoder sees."""

    visible_dim: int

    @abstractmethod
    def density(self) -> LogDensity:
        """log p(z), (S, B, D) -> (S, B). What does not depend on z is done once, here."""

    @abstractmethod
    def sample(self, count: int, device: torch.device) -> Tensor:
        """(count, D)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """(S, B, D) -> (S, B)."""
        return self.density()(z)


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = self.visible_dim = latent_dim

    def density(self) -> LogDensity:
        """log p(z), (S, B, D) -> (S, B)."""
        return StandardNormalDensity()

    def sample(self, count: int, device: torch.device) -> Tensor:
        """(count, D)."""
        return torch.randn(count, self.latent_dim, device=device)


class MixturePrior(Prior):
    """p(z) = sum_k w_k N(mean_k, diag(scale_k^2)), all of it learned.

    Args:
        latent_dim: D
        num_components: of the mixture
        spread: standard deviation of the first means around 0; all scales start at 1

    Raises:
        ValueError: a number is out of range
    """

    def __init__(self, latent_dim: int, num_components: int = 10, spread: float = 1.0) -> None:
        super().__init__()
        _require_components(num_components)
        if not 0 <= spread < math.inf:
            raise ValueError(f"spread={spread}: must be 0 or more, and finite")
        self.visible_dim = latent_dim
        self.means = nn.Parameter(spread * torch.randn(num_components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(num_components, latent_dim))
        self.logits = nn.Parameter(torch.zeros(num_components))

    def density(self) -> LogDensity:
        """log p(z), (S, B, D) -> (S, B)."""
        inverse, log_weights = (-self.log_scales).exp(), self.logits.log_softmax(0)
        constants = log_weights - self.log_scales.sum(-1) - 0.5 * self.visible_dim * math.log(2 * math.pi)

        def log_density(z: Tensor) -> Tensor:
            # |z - m|^2 / s^2 multiplied out would be two matrix products, and lose all digits where m / s is large.
            distance = ((z[..., None, :] - self.means) * inverse).square().sum(-1)
            return (constants - 0.5 * distance).logsumexp(-1)

        return log_density

    @torch.no_grad()
    def sample(self, count: int, device: torch.device) -> Tensor:
        """(count, D)."""
        chosen = torch.multinomial(self.logits.softmax(0), count, replacement=True)
        noise = torch.randn(count, self.visible_dim, device=device)
        return self.means[chosen] + self.log_scales[chosen].exp() * noise


class VampPrior(Prior):
    """p(z) = 1/K sum_k q(z | u_k), with pseudo-inputs u_k that are learned in data space (Tomczak and Welling 2018).

    The encoder is the model's own: it is used here and not owned, so that its weights are stored and counted once.

    Args:
        encoder: x -> q(z | x)
        draw_data: count -> as many training data, at random
        bounded: data lie in [0, 1], so that pseudo-inputs are clipped to it
        latent_dim: D
        num_components: K
        init: pseudo-inputs start at training `data`, or at their `mean` with a little noise

    Raises:
        ValueError: num_components < 1
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Distribution],
        draw_data: Callable[[int], Tensor],
        bounded: bool,
        latent_dim: int,
        num_components: int = 50,
        init: Literal["data", "mean"] = "data",
    ) -> None:
        super().__init__()
        _require_components(num_components)
        self._encoder = (encoder,)  # a tuple: not a part of this module
        self.bounded = bounded
        self.visible_dim = latent_dim
        start = draw_data(num_components)
        if init == "mean":
            average = draw_data(1000).mean(0)
            start = average + 0.01 * torch.randn(num_components, *average.shape)
        self.pseudo_inputs = nn.Parameter(start.clone())

    def components(self) -> Distribution:
        """q(z | u_k) of every pseudo-input, batch shape (K,)."""
        inputs = self.pseudo_inputs.clamp(0, 1) if self.bounded else self.pseudo_inputs
        return self._encoder[0](inputs)

    def density(self) -> LogDensity:
        """log p(z), (S, B, D) -> (S, B). The pseudo-inputs are encoded once, here."""
        mixture, log_count = self.components(), math.log(len(self.pseudo_inputs))
        return lambda z: mixture.log_prob(z[..., None, :]).logsumexp(-1) - log_count

    @torch.no_grad()
    def sample(self, count: int, device: torch.device) -> Tensor:
        """(count, D)."""
        size = len(self.pseudo_inputs)
        chosen = torch.randint(size, (count,), device=device)
        # One draw of every component for each of them: simple, and small beside the decoder's work.
        return self.components().sample((count,))[torch.arange(count, device=device), chosen]


class FlowPrior(Prior):
    """z = T(e), e ~ N(0, I), T a normalizing flow.

    Args:
        latent_dim: D
        transform: `realnvp` and `spline` are as fast in both directions; `maf` has a fast density and draws that take D
            passes; `iaf` the other way round
        layers, hidden: see `Bijection`

    Raises:
        ValueError: a number is out of range
    """

    def __init__(
        self,
        latent_dim: int,
        transform: Literal["realnvp", "spline", "maf", "iaf"] = "realnvp",
        layers: int = 4,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self.visible_dim = latent_dim
        self.from_noise = transform == "iaf"  # which way the map's fast direction goes
        name = "autoregressive" if transform in ("maf", "iaf") else transform
        self.bijection = Bijection(latent_dim, 0, name, layers, hidden)

    def density(self) -> LogDensity:
        """log p(z), (S, B, D) -> (S, B)."""
        to_noise = self.bijection.inverse if self.from_noise else self.bijection

        def log_density(z: Tensor) -> Tensor:
            noise, log_det = to_noise(z)
            return standard_normal(noise) + log_det

        return log_density

    @torch.no_grad()
    def sample(self, count: int, device: torch.device) -> Tensor:
        """(count, D)."""
        noise = torch.randn(count, self.visible_dim, device=device)
        z, _ = self.bijection(noise) if self.from_noise else self.bijection.inverse(noise)
        return z


def _require_components(num_components: int) -> None:
    if num_components < 1:
        raise ValueError(f"num_components={num_components}: must be at least 1")
