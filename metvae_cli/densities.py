"""The annealed path between encoder and model, and the points a chain visits on it.

Shape legend, used in the whole package
    S  samples (chains) per datum        B  data in the batch
    D  latent dimension                  K  Markov steps
Positions are (S, B, D); every log-quantity is (S, B), in nats.

The path is linear in log-density, log g_beta(z) = (1 - beta) log q(z | x) + beta log p(x, z), so one value and
gradient of both ends at a point gives log g_beta and its score there for every beta.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.scores import LogDensity, value_and_score

Beta = Tensor | float  # an inverse temperature: a number, or () where it is learned


class Point(NamedTuple):
    """A position and what both ends of the path say there.

    z: (S, B, D)
    log_initial: (S, B), log q(z | x)         score_initial: (S, B, D), its gradient in z
    log_final: (S, B), log p(x, z)            score_final: (S, B, D), its gradient in z
    Scores are None where no kernel of the sampler uses them.
    momentum: (S, B, D), or the direction +1 or -1, (S, B, 1); only for kernels that keep it between steps.
    """

    z: Tensor
    log_initial: Tensor
    log_final: Tensor
    score_initial: Tensor | None = None
    score_final: Tensor | None = None
    momentum: Tensor | None = None


class Frame(NamedTuple):
    """Coordinates w = (z - location) / scale in which a chain moves; both (B, D) or (D,)."""

    location: Tensor
    scale: Tensor


class AnnealedPath:
    """log g_beta = (1 - beta) log_initial + beta log_final, for the data of one batch.

    `evaluate` and `value_under` are the only places that call the decoder; `evaluations` counts the latent vectors that
    were decoded.

    Args:
        log_initial: z (S, B, D) -> log q(z | x), (S, B)
        log_final: z (S, B, D) -> log p(x, z), (S, B)
        needs_score: whether points carry scores
        detach_forces: treat scores as constants in the gradient. This is another, biased estimator.
        frame: coordinates of the moves; None is those of z. Densities and weights do not change with it, since its
            Jacobian is the same at every point of a chain
        context: what a proposal may know of x, (B, C); None where there is nothing to know
        draw_initial: sample shape (S,) -> draws of q(z | x), (S, B, D); for independent proposals
    """

    def __init__(
        self,
        log_initial: LogDensity,
        log_final: LogDensity,
        *,
        needs_score: bool,
        detach_forces: bool = False,
        frame: Frame | None = None,
        context: Tensor | None = None,
        draw_initial: Callable[[tuple[int, ...]], Tensor] | None = None,
    ) -> None:
        self.frame = frame
        self.context = context
        self.draw_initial = draw_initial
        self.log_initial = log_initial
        self.log_final = log_final
        self.needs_score = needs_score
        self.detach_forces = detach_forces
        self.evaluations = 0

    def evaluate(self, z: Tensor, *, create_graph: bool) -> Point:
        """Value (and score, if the path carries scores) of both ends at z.

        With `create_graph` everything is differentiable in z and in the parameters; without it nothing is, and no
        graph survives the call.
        """
        self.evaluations += z.shape[0] * z.shape[1]
        if not self.needs_score:
            with torch.set_grad_enabled(create_graph):
                return Point(z, self.log_initial(z), self.log_final(z))
        again = create_graph and not self.detach_forces
        log_initial, score_initial = value_and_score(
            self.log_initial, z, create_graph=create_graph, differentiable=again
        )
        log_final, score_final = value_and_score(self.log_final, z, create_graph=create_graph, differentiable=again)
        return Point(z, log_initial, log_final, score_initial, score_final)

    def value_under(self, log_density: LogDensity, z: Tensor) -> Tensor:
        """Another log-density of the decoder's than that of the path's end, at z; (S, B), counted."""
        self.evaluations += z.shape[0] * z.shape[1]
        return log_density(z)

    def log_prob(self, point: Point, beta: Beta) -> Tensor:
        """log g_beta at a visited point, (S, B). Costs nothing."""
        return between(point.log_initial, point.log_final, beta)

    def score(self, point: Point, beta: Beta) -> Tensor:
        """Gradient of log g_beta at a visited point in the coordinates of the frame, (S, B, D). Costs nothing."""
        if point.score_initial is None or point.score_final is None:
            raise ValueError("this point carries no score: build the path with needs_score=True")
        score = between(point.score_initial, point.score_final, beta)
        return score if self.frame is None else self.frame.scale * score

    def shift(self, z: Tensor, increment: Tensor) -> Tensor:
        """z moved by an increment in the coordinates of the frame, (S, B, D)."""
        return z + increment if self.frame is None else torch.addcmul(z, self.frame.scale, increment)

    def to_frame(self, z: Tensor) -> Tensor:
        """Coordinates of z in the frame, (S, B, D)."""
        return z if self.frame is None else (z - self.frame.location) / self.frame.scale

    def from_frame(self, w: Tensor) -> Tensor:
        """The inverse of `to_frame`."""
        return w if self.frame is None else self.frame.location + self.frame.scale * w


def between(initial: Tensor, final: Tensor, beta: Beta) -> Tensor:
    """(1 - beta) initial + beta final; the final one itself where beta is the number 1."""
    if isinstance(beta, float):
        return final if beta == 1.0 else torch.add((1 - beta) * initial, final, alpha=beta)
    return (1 - beta) * initial + beta * final


def select(chosen: Tensor, this: Point, other: Point) -> Point:
    """Row-wise choice between two points, chosen (S, B) bool. No in-place writes: autograd keeps both."""
    if chosen.device.type == "cpu" and _all(chosen):
        return this  # the same values and gradients; elsewhere to ask would be to wait for the device

    def pick(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        if a is None or b is None:
            return None
        return torch.where(chosen[..., None] if a.dim() > chosen.dim() else chosen, a, b)

    return Point(*(pick(a, b) for a, b in zip(this, other, strict=True)))  # pyright: ignore[reportArgumentType]


def _all(chosen: Tensor) -> bool:
    try:
        return bool(chosen.all())
    except RuntimeError:  # under torch.vmap, where runs side by side may differ
        return False


def concatenate(*points: Point) -> Point:
    """Points as one, of as many samples as all have; an entry that any lacks is None."""

    def join(entries: tuple[Tensor | None, ...]) -> Tensor | None:
        known = [entry for entry in entries if entry is not None]
        return torch.cat(known) if len(known) == len(entries) else None

    return Point(*map(join, zip(*points, strict=True)))  # pyright: ignore[reportArgumentType]
