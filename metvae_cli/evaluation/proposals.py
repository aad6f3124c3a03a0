"""Proposals of importance sampling: the encoder, the encoder spread out, an encoder trained anew."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from metvae_cli.data.base import Dataset, epoch_order
from metvae_cli.evaluation.streams import stream_seed
from metvae_cli.models.vae import VAE
from metvae_cli.objectives.base import Posterior
from metvae_cli.objectives.weights import WeightObjective
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.schedule import Constant


class Overdispersed:
    """A posterior with every draw `widen` times as far from its mean: a Gaussian with that many times the scale.

    Weights with a posterior that is too narrow have no variance; a little too wide costs little.
    """

    def __init__(self, posterior: Posterior, widen: float) -> None:
        self._posterior, self._widen = posterior, widen

    @property
    def mean(self) -> Tensor:
        """(B, D)."""
        return self._posterior.mean

    @property
    def stddev(self) -> Tensor:
        """(B, D)."""
        return self._widen * self._posterior.stddev

    def rsample(self, sample_shape: tuple[int, ...]) -> Tensor:
        """(S, B, D)."""
        return self.mean + self._widen * (self._posterior.rsample(sample_shape) - self.mean)

    def log_prob(self, value: Tensor, /) -> Tensor:
        """(S, B, D) -> (S, B); the Jacobian of the spreading is widen^D."""
        back = self.mean + (value - self.mean) / self._widen
        return self._posterior.log_prob(back) - value.shape[-1] * math.log(self._widen)


def overdispersed(propose: Callable[[Tensor], Posterior], widen: float) -> Callable[[Tensor], Posterior]:
    """The proposal with its draws spread out."""
    return lambda x: Overdispersed(propose(x), widen)


def retrain_encoder(
    model: VAE,
    dataset: Dataset,
    epochs: int,
    lr: float,
    num_samples: int = 8,
    batch_size: int = 100,
    seed: int = 0,
    between: Callable[[int], None] = lambda done: None,
) -> tuple[nn.Module, Sequence[float]]:
    """A copy of the encoder trained on the frozen decoder to be a proposal: it maximises the importance-weighted bound.

    For models whose encoder was not trained to lie over the posterior: one that only starts a chain may lie anywhere.
    The copy starts from the encoder and is the best on the validation data of all epochs, the start included.

    Args:
        between: called with the number of epochs done

    Returns:
        the encoder, on the model's device, and the validation bound in nats before and after each epoch
    """
    tuned = copy.copy(model)  # the same decoder and prior, another encoder; a prior made of the encoder keeps its own
    tuned._modules = dict(model._modules)
    tuned.encoder = copy.deepcopy(cast(nn.Module, model.encoder))
    encoder = cast(nn.Module, tuned.encoder)
    objective = WeightObjective("none", "log_mean_exp", num_samples, gradient="dreg")
    none = Sampler([], Constant(0))
    optimizer = torch.optim.Adam(encoder.parameters(), lr)
    valid = dataset.held_out(dataset.valid, torch.arange(min(2000, len(dataset.valid))))
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed("retrain", seed))
        bounds = [_validation_bound(objective, tuned, none, valid, batch_size)]
        best = copy.deepcopy(encoder.state_dict())
        for epoch in range(epochs):
            between(epoch)
            order = epoch_order(len(dataset.train), seed, epoch)
            for part in order.split(batch_size):
                loss = objective(tuned, none, dataset.batch(part.to(dataset.train.values.device))).loss
                _step(loss, encoder, optimizer)
            bounds.append(_validation_bound(objective, tuned, none, valid, batch_size))
            if bounds[-1] >= max(bounds):
                best = copy.deepcopy(encoder.state_dict())
    between(epochs)
    encoder.load_state_dict(best)
    return encoder, bounds


def _step(loss: Tensor, encoder: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One step of the encoder alone; none where the gradient is not finite."""
    parameters = list(encoder.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if torch.isfinite(nn.utils.clip_grad_norm_(parameters, 50.0)):
        optimizer.step()


@torch.no_grad()
def _validation_bound(objective: WeightObjective, model: VAE, none: Sampler, x: Tensor, batch_size: int) -> float:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.cat([objective(model, none, part).bound for part in x.split(batch_size)]).mean().item()
