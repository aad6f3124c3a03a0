"""An independent account of MetVAE and A-MCVAE in one dimension: all 2^K decisions enumerated, nothing drawn.

Written from the equations and sharing no code with the package: scores by hand, the leapfrog written out, acceptance
probabilities multiplied rather than sampled, densities rather than increments. The start z_0 = mean + scale * node runs
over quadrature nodes and the noise u_k of each step is fixed, so values and gradients are exact up to rounding.
"""

import itertools
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

LOG_TWO_PI = 1.8378770664093453
COIN = 0.7  # probability that a flow runs forwards
ProposalName = Literal[
    "random_walk", "langevin", "hmc_1", "hmc_3", "partial_averaged", "partial_fixed", "flow_coin", "flow_lifted"
]
Likelihood = Literal["gaussian", "bernoulli"]
ReverseName = Literal["uniform", "learned", "exact"]


@dataclass
class Parameters:
    """Scalars: q(z | x) = N(mean, e^(2 log_scale)); p(x | z) has location slope * z + offset, and log step sizes.

    logits: of the share of the momentum that each step keeps. flows: (s, t) of T z = e^s z + t of each step.
    reverse: (slope, offset) of the logit of each decision in z_K, of a learned reverse distribution.
    """

    mean: Tensor
    log_scale: Tensor
    slope: Tensor
    offset: Tensor
    log_steps: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    flows: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    reverse: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def all(self) -> list[Tensor]:
        pairs = [part for pair in (*self.flows, *self.reverse) for part in pair]
        return [self.mean, self.log_scale, self.slope, self.offset, *self.log_steps, *self.logits, *pairs]


class State(NamedTuple):
    """Position, and the momentum or direction that a chain keeps (0 where it keeps none)."""

    z: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Problem:
    """What is held fixed. betas: inverse temperature of each step. noise: u_k of each step; a flow reads its sign."""

    likelihood: Likelihood
    proposal: ProposalName
    barker: bool
    bookkeeping: Literal["path", "reversal"]
    betas: tuple[float, ...]
    noise: tuple[float | Tensor, ...]
    reverse: ReverseName = "uniform"
    x: float = 1.0
    noise_scale: float = 0.7
    first_momentum: float = 0.6  # of the partly refreshed chains

    @property
    def is_partial(self) -> bool:
        return self.proposal.startswith("partial")

    @property
    def is_flow(self) -> bool:
        return self.proposal.startswith("flow")

    @property
    def turn(self) -> int:
        """The noise of a move is what leads back by the same move: a fresh momentum turned round, a kept one not."""
        return 1 if self.is_partial else -1

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

    # ---------------------------------------------------------------- moves, and the densities of their noise

    def leapfrogs(self, z: Tensor, momentum: Tensor, p: Parameters, step: int, sign: int = 1) -> tuple[Tensor, Tensor]:
        """Backwards in time for sign = -1."""
        h, beta = sign * p.log_steps[step].exp(), self.betas[step]
        for _ in range(2 if self.is_partial else int(self.proposal[-1])):
            momentum = momentum + h / 2 * self.score(z, p, beta)
            z = z + h * momentum
            momentum = momentum + h / 2 * self.score(z, p, beta)
        return z, momentum

    def transport(self, z: Tensor, direction: Tensor, p: Parameters, step: int) -> Tensor:
        s, t = p.flows[step]
        return torch.where(direction > 0, s.exp() * z + t, (z - t) / s.exp())

    def move(self, z: Tensor, u: Tensor, p: Parameters, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """(z', u', log |det d(z', u') / d(z, u)|)."""
        beta, zero = self.betas[step], torch.zeros_like(z)
        if self.is_flow:
            turned = u if self.proposal == "flow_lifted" else -u
            return self.transport(z, u, p, step), turned, u * p.flows[step][0]
        h = p.log_steps[step].exp()
        if self.proposal == "random_walk":
            return z + h * u, -u, zero
        if self.proposal == "langevin":
            moved = z + h * self.score(z, p, beta) + (2 * h).sqrt() * u
            return moved, (z - moved - h * self.score(moved, p, beta)) / (2 * h).sqrt(), zero
        position, momentum = self.leapfrogs(z, u, p, step)
        return position, self.turn * momentum, zero

    def unmove(self, z: Tensor, u: Tensor, p: Parameters, step: int) -> tuple[Tensor, Tensor]:
        """The (z, u) that `move` sends to this one."""
        if self.is_flow:
            before = u if self.proposal == "flow_lifted" else -u
            return self.transport(z, -before, p, step), before
        h, beta = p.log_steps[step].exp(), self.betas[step]
        if self.proposal == "random_walk":
            return z + h * u, -u
        if self.proposal == "langevin":
            before = z + h * self.score(z, p, beta) + (2 * h).sqrt() * u
            return before, (z - before - h * self.score(before, p, beta)) / (2 * h).sqrt()
        return self.leapfrogs(z, self.turn * u, p, step, sign=-1)

    def log_rho(self, u: Tensor) -> Tensor:
        """Density of the noise of a move, or of the momentum; a lifted direction is fair."""
        if self.proposal == "flow_coin":
            return torch.where(u > 0, COIN, 1 - COIN).to(u).log()
        return torch.zeros_like(u) if self.is_flow else -0.5 * u**2

    # ---------------------------------------------------------------- histories

    def paths(self, z_0: Tensor, p: Parameters) -> list[tuple[tuple[int, ...], Tensor, Tensor]]:
        """For each history of decisions: (history, its probability, log-weight), tensors of z_0's shape."""
        return [(history, *self._follow(z_0, p, history)) for history in self.histories()]

    def histories(self) -> list[tuple[int, ...]]:
        return list(itertools.product((0, 1), repeat=len(self.betas)))

    def first(self, z_0: Tensor) -> State:
        if self.is_flow:
            return State(z_0, (self.noise[0] + torch.zeros_like(z_0)).sign())
        return State(z_0, torch.full_like(z_0, self.first_momentum))

    def shares(self, p: Parameters, step: int) -> tuple[Tensor, Tensor]:
        rho = torch.sigmoid(p.logits[step])
        return rho, (1 - rho**2).sqrt()

    def before_move(self, state: State, p: Parameters, step: int) -> tuple[Tensor, Tensor]:
        """Noise of the move, and what is left of the refreshment's noise (or the noise itself, if it is fixed)."""
        noise = self.noise[step] + torch.zeros_like(state.z)
        if self.is_partial:
            rho, rest = self.shares(p, step)
            left = rest * state.kept - rho * noise if self.proposal == "partial_averaged" else noise
            return rho * state.kept + rest * noise, left
        if self.proposal == "flow_lifted":
            return state.kept, torch.zeros_like(noise)
        return noise.sign() if self.is_flow else noise, torch.zeros_like(noise)

    def accept(self, z: Tensor, u: Tensor, p: Parameters, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Probability of accepting the move from (z, u), and where it leads."""
        moved, turned, log_det = self.move(z, u, p, step)
        beta = self.betas[step]
        ratio = self.log_target(moved, p, beta) - self.log_target(z, p, beta)
        ratio = ratio + self.log_rho(turned) - self.log_rho(u) + log_det
        probability = torch.sigmoid(ratio) if self.barker else torch.minimum(torch.ones_like(ratio), ratio.exp())
        return probability, moved, turned, log_det

    def _follow(self, z_0: Tensor, p: Parameters, history: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        state, probability = self.first(z_0), torch.ones_like(z_0)
        log_weight, backs = -self.log_q(z_0, p), []
        keeps = self.is_partial or self.proposal == "flow_lifted"
        for step, decision in enumerate(history):
            beta = self.betas[step]
            u, left = self.before_move(state, p, step)
            if self.proposal == "partial_fixed":
                log_weight = log_weight + self.shares(p, step)[0].log() - 0.5 * u**2 + 0.5 * state.kept**2
            accept, moved, turned, log_det = self.accept(state.z, u, p, step)
            taken = accept if decision else 1 - accept
            probability = probability * taken
            if self.bookkeeping == "path":
                # A decision of probability zero is multiplied by zero below; its logarithm must only stay finite.
                log_taken = torch.log(torch.where(taken > 0, taken, torch.ones_like(taken)))
                correction = self.log_rho(turned) - self.log_rho(u) + log_det
                log_weight = log_weight + decision * correction - log_taken
            elif decision:
                log_weight = log_weight + self.log_target(state.z, p, beta) - self.log_target(moved, p, beta)
            back = turned if decision else u
            backs.append((torch.zeros_like(back) if keeps else back, left))
            state = State(moved if decision else state.z, turned if decision else -u)
        if self.reverse == "exact":
            return probability, self._exact_weight(state, backs, p)
        log_weight = log_weight + self.log_joint(state.z, p)
        return probability, log_weight + (self._log_reverse(history, state.z, p) if self.bookkeeping == "path" else 0)

    def _log_reverse(self, history: tuple[int, ...], z: Tensor, p: Parameters) -> Tensor:
        if self.reverse == "uniform":
            return -len(history) * torch.log(torch.tensor(2.0))
        logits = [slope * z + offset for slope, offset in p.reverse]
        chances = [1 / (1 + (-logit if a else logit).exp()) for a, logit in zip(history, logits, strict=True)]
        return sum((chance.log() for chance in chances), torch.zeros_like(z))

    def _exact_weight(self, end: State, backs: list[tuple[Tensor, Tensor]], p: Parameters) -> Tensor:
        """log p(end) - log m(end): the target's density of all that is left, and its density under the chain."""
        target = self.log_joint(end.z, p)
        if self.is_partial:
            target = target - 0.5 * end.kept**2
            averaged = self.proposal == "partial_averaged"
            target = target + sum(-0.5 * left**2 for _, left in backs) * float(averaged)
        elif self.proposal != "flow_lifted":
            target = target + sum(self.log_rho(back) for back, _ in backs)
        return target - torch.stack([self._log_mass(history, end, backs, p) for history in self.histories()]).logsumexp(
            0
        )

    def _log_mass(
        self, history: tuple[int, ...], end: State, backs: list[tuple[Tensor, Tensor]], p: Parameters
    ) -> Tensor:
        """log m(end, history): densities of the start and of all noise, probabilities, and Jacobians."""
        state, total = end, torch.zeros_like(end.z)
        keeps = self.is_partial or self.proposal == "flow_lifted"
        for step in reversed(range(len(history))):
            back, left = backs[step]
            noise = state.kept if keeps else back
            if history[step]:
                z, u = self.unmove(state.z, noise, p, step)
            else:
                z, u = state.z, -noise if keeps else noise
            accept, _, _, log_det = self.accept(z, u, p, step)
            taken = accept if history[step] else 1 - accept
            total = total + torch.where(taken > 0, taken, torch.zeros_like(taken)).log() - history[step] * log_det
            kept = u
            if self.is_partial:
                rho, rest = self.shares(p, step)
                averaged = self.proposal == "partial_averaged"
                kept = rho * u + rest * left if averaged else (u - rest * left) / rho
                total = total - 0.5 * (rest * u - rho * left) ** 2 if averaged else total - rho.log()
            elif not keeps:
                total = total + self.log_rho(u)
            state = State(z, kept)
        momentum = -0.5 * state.kept**2 if self.is_partial else torch.zeros_like(total)
        return total + momentum + self.log_q(state.z, p)


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
