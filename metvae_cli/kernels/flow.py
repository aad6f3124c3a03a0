"""Flow proposals: a normalizing flow T, run forwards or backwards (MetFlow, Thin et al. 2020, arXiv 2002.12253).

The direction v, +1 or -1, is the auxiliary noise u of `kernels/base.py`, and T^v is T or its inverse.

| direction | drawn                          | accepted       | rejected | log_correction                       |
| coin      | for every proposal, P(+1) = p  | (T^v z, -v)    |          | log |det dT^v| + log P(-v) - log P(v) |
| lifted    | once, by a fair coin, and kept | (T^v z, v)     | (z, -v)  | log |det dT^v|                       |

The lifted chain is not reversible: it goes on in one direction until it is rejected. T acts in the coordinates of the
path's frame. What else T is told, a noise vector, needs no density: the bound holds for every fixed value of it.
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from metvae_cli.bijections import Bijection, TransformName
from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.base import Proposal, ProposalFamily, Proposed, Refreshed
from metvae_cli.kernels.step_size import StepSize


class Coin(nn.Module):
    """The law of a direction: P(+1) = sigmoid(logit), a number or learned.

    Raises:
        ValueError: the probability does not lie inside (0, 1)
    """

    logit: Tensor

    def __init__(self, probability: float = 0.5, *, learned: bool = False) -> None:
        super().__init__()
        if not 0 < probability < 1:
            raise ValueError(f"coin_probability={probability}: must lie between 0 and 1, both excluded")
        self.learned = learned
        logit = torch.logit(torch.tensor(probability, dtype=torch.float64)).to(torch.get_default_dtype())
        if learned:
            self.logit = nn.Parameter(logit)
        else:
            self.register_buffer("logit", logit)

    def draw(self, z: Tensor) -> Tensor:
        """A direction for each position z (S, B, D): +1 or -1, (S, B, 1). No gradient passes."""
        forwards = torch.rand_like(z[..., :1]) < torch.sigmoid(self.logit.detach())
        return 2 * forwards.to(z) - 1

    def log_prob(self, direction: Tensor) -> Tensor:
        """log P(v), (S, B)."""
        return logsigmoid(direction[..., 0] * self.logit)

    def log_way_back(self, direction: Tensor) -> Tensor:
        """log P(-v) - log P(v), (S, B)."""
        return -direction[..., 0] * self.logit


class Forwards(nn.Module):
    """No coin: always +1. Accepting or rejecting such a move leaves nothing invariant; taken as it is, it is a flow."""

    learned = False

    def draw(self, z: Tensor) -> Tensor:
        """+1 for each position z (S, B, D), (S, B, 1)."""
        return torch.ones_like(z[..., :1])

    def log_way_back(self, direction: Tensor) -> Tensor:
        """0, (S, B): the way back is not by a draw."""
        return torch.zeros_like(direction[..., 0])


class Flow(Proposal):
    """z' = T^v z, with v drawn by a coin or, without one, kept in `Point.momentum` (S, B, 1) and turned by rejections.

    Args:
        bijection: T; several steps may share it
        coin: law of the direction; None for a lifted one, `Forwards` for one that never runs backwards
        noise: a vector (C,) that T is told; `fresh` for a new one, (D,), at every call, the same for all rows
        condition_on_x: T is told `AnnealedPath.context` too; it stands before the noise
    """

    def __init__(
        self,
        bijection: Bijection,
        coin: Coin | Forwards | None,
        noise: Tensor | Literal["fresh"] | None = None,
        *,
        condition_on_x: bool = False,
    ) -> None:
        super().__init__()
        self.bijection = bijection
        self.coin = coin
        self.draws_noise = isinstance(noise, str)
        self.register_buffer("noise", None if isinstance(noise, str) else noise)
        self.condition_on_x = condition_on_x
        self.is_reversible = not isinstance(coin, Forwards)
        self.can_retrace = self.is_reversible and not self.draws_noise
        self.draws_choice = coin is not None and coin.learned
        self.is_deterministic = isinstance(coin, Forwards) and not self.draws_noise

    def refresh(self, point: Point) -> Refreshed:
        """Give a lifted chain its first direction. Fair coins before and after: the weight does not change."""
        if self.coin is not None or point.momentum is not None:
            return Refreshed(point)
        forwards = torch.rand_like(point.z[..., :1]) < 0.5
        return Refreshed(point._replace(momentum=2 * forwards.to(point.z) - 1))

    def rejected(self, point: Point) -> Point:
        """A lifted chain turns round."""
        if self.coin is not None or point.momentum is None:
            return point
        return point._replace(momentum=-point.momentum)

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        """One value of the path; the flow itself is run in both directions, unless it only runs forwards."""
        del beta  # the move is the same for every target
        direction = noise if noise is not None else self._direction(point)
        context = flow_context(path, self.condition_on_x, self._noise_for(point.z))
        start = path.to_frame(point.z)
        if isinstance(self.coin, Forwards):
            moved, log_det = self.bijection(start, context)
        else:
            moved, log_det = self.bijection.directed(start, direction, context)
        there = path.evaluate(path.from_frame(moved), create_graph=create_graph)
        if self.coin is None:
            return Proposed(there._replace(momentum=direction), log_det)
        log_correction = log_det + self.coin.log_way_back(direction)
        log_choice = self.coin.log_prob(direction) if isinstance(self.coin, Coin) and self.coin.learned else None
        return Proposed(there, log_correction, log_choice, direction, -direction)

    def _direction(self, point: Point) -> Tensor:
        if self.coin is not None:
            return self.coin.draw(point.z)
        if point.momentum is None:
            raise ValueError("this point carries no direction: call refresh first")
        return point.momentum

    def _noise_for(self, z: Tensor) -> Tensor | None:
        return z.new_empty(z.shape[-1]).normal_() if self.draws_noise else cast("Tensor | None", self.noise)


def flow_context(path: AnnealedPath, condition_on_x: bool, noise: Tensor | None = None) -> Tensor | None:
    """What a flow is told: the path's context (B, C) and a noise vector, joined; None where there is neither."""
    if not condition_on_x:
        return noise
    if path.context is None:
        raise ValueError("condition_on_x=true: this path says nothing of x; build it with a context")
    if noise is None:
        return path.context
    return torch.cat([path.context, noise.expand(*path.context.shape[:-1], -1)], -1)


def make_coin(direction: str, probability: float, learned: bool) -> Coin | Forwards | None:
    """The law of the direction by its name."""
    if direction == "coin":
        return Coin(probability, learned=learned)
    return Forwards() if direction == "forwards" else None


class FlowProposals(ProposalFamily):
    """Flows for all steps: K separate ones, or one that noise vectors tell apart.

    Args:
        latent_dim: D
        context_dim: of the path's context
        num_steps: K
        transform, layers, hidden: see `Bijection`
        condition_on_x: the flow is told what the path knows of x
        noise: `none`: K separate flows. `frozen`: one flow and one coin for all steps, and K noise vectors in R^D,
            drawn here once and stored with the weights (the pseudo-random setting of MetFlow). `fresh`: one flow, one
            coin, and a new vector at every call, shared by the batch
        direction: `coin` (reversible) or `lifted`, see the module's head; or `forwards`, a plain flow, for
            acceptance=none or the path bookkeeping, which hold for any bijection
        coin_probability: of running forwards, at first if learned
        learn_coin: the probability is learned, through the score-function term of the bound

    Raises:
        ValueError: a number is out of range, or an option of the coin is set where there is none
    """

    def __init__(
        self,
        latent_dim: int,
        context_dim: int,
        num_steps: int,
        transform: TransformName = "realnvp",
        layers: int = 2,
        hidden: Sequence[int] = (64, 64),
        condition_on_x: bool = False,
        noise: Literal["none", "frozen", "fresh"] = "none",
        direction: Literal["coin", "lifted", "forwards"] = "coin",
        coin_probability: float = 0.5,
        learn_coin: bool = False,
    ) -> None:
        if direction != "coin" and learn_coin:
            raise ValueError(f"learn_coin=true: a {direction} flow tosses no coin; set direction=coin")
        if direction != "coin" and coin_probability != 0.5:
            raise ValueError(f"coin_probability={coin_probability}: only a coin has one; set direction=coin")
        told = (context_dim if condition_on_x else 0) + (latent_dim if noise != "none" else 0)
        count = num_steps if noise == "none" else 1
        bijections = [Bijection(latent_dim, told, transform, layers, hidden) for _ in range(count)]
        coins = [make_coin(direction, coin_probability, learn_coin) for _ in range(count)]
        self._flows: list[Proposal] = []
        for step in range(num_steps):
            which = step if noise == "none" else 0
            vector = torch.randn(latent_dim) if noise == "frozen" else "fresh" if noise == "fresh" else None
            self._flows.append(Flow(bijections[which], coins[which], vector, condition_on_x=condition_on_x))

    def proposals(self, step_sizes: Sequence[StepSize]) -> list[Proposal]:
        """The flows, one per step. A flow has no step size: the values are not used."""
        if len(step_sizes) != len(self._flows):
            raise ValueError(f"num_steps={len(self._flows)}: made for another number of steps than {len(step_sizes)}")
        return self._flows
