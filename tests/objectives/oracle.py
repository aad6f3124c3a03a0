"""An independent account of MetVAE and A-MCVAE in one dimension: all 2^K decisions enumerated, nothing drawn.

Written from the equations and sharing no code with the package: scores by hand, the leapfrog written out, acceptance
probabilities multiplied rather than sampled. The start z_0 = mean + scale * node runs over quadrature nodes and the
noise u_k of each step is fixed (or runs over nodes too), so values and gradients are exact up to rounding.
"""

import itertools
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

LOG_TWO_PI = 1.8378770664093453
ProposalName = Literal["random_walk", "langevin", "hmc_1", "hmc_3", "partial_averaged", "partial_fixed"]
Likelihood = Literal["gaussian", "bernoulli"]


@dataclass
class Parameters:
    """Scalars: q(z | x) = N(mean, e^(2 log_scale)); p(x | z) has location slope * z + offset, and log step sizes."""

    mean: Tensor
    log_scale: Tensor
    slope: Tensor
    offset: Tensor
    log_steps: list[Tensor]
    logits: list[Tensor] = field(default_factory=list)  # of the share of the momentum that each step keeps

    def all(self) -> list[Tensor]:
        return [self.mean, self.log_scale, self.slope, self.offset, *self.log_steps, *self.logits]


@dataclass(frozen=True)
class Problem:
    """What is held fixed. betas: inverse temperature of each step. noise: u_k of each step."""

    likelihood: Likelihood
    proposal: ProposalName
    barker: bool
    bookkeeping: Literal["path", "reversal"]
    betas: tuple[float, ...]
    noise: tuple[float | Tensor, ...]
    x: float = 1.0
    noise_scale: float = 0.7
    first_momentum: float = 0.6  # of the partly refreshed chains

    @property
    def keeps_momentum(self) -> bool:
        return self.proposal.startswith("partial")

    def log_q(self, z: Tensor, p: Parameters) -> Tensor:
        return -0.5 * ((z - p.mean) / p.log_scale.exp()) ** 2 - p.log_scale - 0.5 * LOG_TWO_PI

    def log_joint(self, z: Tensor, p: Parameters) -> Tensor:
        location = p.slope * z + p.offset
        prior = -0.5 * z**2 - 0.5 * LOG_TWO_PI
        if self.likelihood == "bernoulli":
            return prior + self.x * location - torch.log1p(location.exp())
        error = (self.x - location) / self.noise_scale
        return prior - 0.5 * error**2 - 0.5 * LOG_TWO_PI - torch.log(torch.tensor(self.noise_scale))

    def score(self, z: Tensor, p: Parameters, beta: float) -> Tensor:
        location = p.slope * z + p.offset
        if self.likelihood == "bernoulli":
            residual = self.x - 1 / (1 + (-location).exp())
        else:
            residual = (self.x - location) / self.noise_scale**2
        to_q = -(z - p.mean) / (2 * p.log_scale).exp()
        return (1 - beta) * to_q + beta * (p.slope * residual - z)

    def log_target(self, z: Tensor, p: Parameters, beta: float) -> Tensor:
        return (1 - beta) * self.log_q(z, p) + beta * self.log_joint(z, p)

    def refresh(self, momentum: Tensor, p: Parameters, step: int) -> tuple[Tensor, Tensor]:
        """The momentum after refreshment, and what the fixed account of the noise adds to the log-weight."""
        rho = torch.sigmoid(p.logits[step])
        mixed = rho * momentum + (1 - rho**2).sqrt() * self.noise[step]
        if self.proposal == "partial_averaged":
            return mixed, torch.zeros_like(mixed)
        return mixed, rho.log() - 0.5 * mixed**2 + 0.5 * momentum**2

    def leapfrogs(self, z: Tensor, momentum: Tensor, p: Parameters, step: int, count: int) -> tuple[Tensor, Tensor]:
        h, beta = p.log_steps[step].exp(), self.betas[step]
        for _ in range(count):
            momentum = momentum + h / 2 * self.score(z, p, beta)
            z = z + h * momentum
            momentum = momentum + h / 2 * self.score(z, p, beta)
        return z, momentum

    def propose(self, z: Tensor, p: Parameters, step: int) -> tuple[Tensor, Tensor]:
        """Position and log_correction of step `step`."""
        h, u, beta = p.log_steps[step].exp(), self.noise[step], self.betas[step]
        if self.proposal == "random_walk":
            return z + h * u, torch.zeros_like(z)
        if self.proposal == "langevin":
            moved = z + h * self.score(z, p, beta) + (2 * h).sqrt() * u
            back = (z - moved - h * self.score(moved, p, beta)) / (2 * h).sqrt()
            return moved, 0.5 * (u**2 - back**2)
        position, momentum = self.leapfrogs(z, u + torch.zeros_like(z), p, step, int(self.proposal[-1]))
        return position, 0.5 * (u**2 - momentum**2)

    def paths(self, z_0: Tensor, p: Parameters) -> list[tuple[tuple[int, ...], Tensor, Tensor]]:
        """For each history of decisions: (history, its probability, log-weight), tensors of z_0's shape."""
        return [(history, *self._follow(z_0, p, history)) for history in self.histories()]

    def histories(self) -> list[tuple[int, ...]]:
        return list(itertools.product((0, 1), repeat=len(self.betas)))

    def _follow(self, z_0: Tensor, p: Parameters, history: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        z, probability = z_0, torch.ones_like(z_0)
        log_weight = -self.log_q(z_0, p)
        momentum = torch.full_like(z_0, self.first_momentum)
        for step, decision in enumerate(history):
            beta = self.betas[step]
            if self.keeps_momentum:
                momentum, added = self.refresh(momentum, p, step)
                log_weight = log_weight + added
                moved, end = self.leapfrogs(z, momentum, p, step, 2)
                correction = 0.5 * (momentum**2 - end**2)
                momentum = end if decision else -momentum
            else:
                moved, correction = self.propose(z, p, step)
            ratio = self.log_target(moved, p, beta) - self.log_target(z, p, beta) + correction
            accept = torch.sigmoid(ratio) if self.barker else torch.minimum(torch.ones_like(ratio), ratio.exp())
            taken = accept if decision else 1 - accept
            probability = probability * taken
            if self.bookkeeping == "path":
                # A decision of probability zero is multiplied by zero below; its logarithm must only stay finite.
                log_taken = torch.log(torch.where(taken > 0, taken, torch.ones_like(taken)))
                log_weight = log_weight + decision * correction - log_taken - torch.log(torch.tensor(2.0))
            elif decision:
                log_weight = log_weight + self.log_target(z, p, beta) - self.log_target(moved, p, beta)
            z = moved if decision else z
        return probability, log_weight + self.log_joint(z, p)


def expectation(problem: Problem, p: Parameters, nodes: Tensor, weights: Tensor) -> Tensor:
    """The ELBO, exactly: sum over nodes and histories of weight * probability * log-weight."""
    z_0 = p.mean + p.log_scale.exp() * nodes
    return sum((weights * prob * log_w).sum() for _, prob, log_w in problem.paths(z_0, p))  # pyright: ignore


def expectation_of_pairs(first: Problem, second: Problem, p: Parameters, nodes: Tensor, weights: Tensor) -> Tensor:
    """The importance-weighted bound of two independent chains, exactly."""
    z_0 = p.mean + p.log_scale.exp() * nodes
    total = torch.zeros(())
    for (_, prob, log_w), (_, other_prob, other_log_w) in itertools.product(first.paths(z_0, p), second.paths(z_0, p)):
        both = torch.logaddexp(log_w[:, None], other_log_w[None, :]) - torch.log(torch.tensor(2.0))
        total = total + ((weights * prob)[:, None] * (weights * other_prob)[None, :] * both).sum()
    return total
