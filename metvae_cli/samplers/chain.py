"""The chain: K kernels applied one after another along a schedule."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from metvae_cli.densities import AnnealedPath, Beta, Frame, Point
from metvae_cli.kernels.base import Kernel, StepInfo
from metvae_cli.samplers.recomputation import Recomputation
from metvae_cli.samplers.reverse import Reverse, Uniform, UniformStops
from metvae_cli.samplers.schedule import Schedule
from metvae_cli.samplers.trajectory import StepStart, Trajectory, make_trajectory

Precondition = Literal["none", "encoder", "adapted"]
Decisions = Literal["sampled", "enumerated", "stopped"]


class Sampler(nn.Module):
    """K kernels along a schedule; no kernel at all is the plain variational auto-encoder.

    Args:
        kernels: one per step, in order; the same object may stand several times
        schedule: the inverse temperature of each step
        detach_forces: treat scores as constants in the gradient (another, biased estimator)
        precondition: coordinates of the moves: those of z, the encoder's (z - mean) / scale, or z / an adapted scale
        latent_dim: D, for the adapted scale
        reverse: r of the path bookkeeping; None is uniform
        decisions: one history per chain, drawn, or all there are, of chains that go on or that stop (`enumeration.py`)
        clones: the target of the moves is a copy of the decoder that is learned apart; see `VAE.clone`
        tracks_spread: trajectories say how far the scores of a batch lie apart

    checkpoints: keep no graph of a step for the backward pass, but compute it again there (`recomputation.py`)
    """

    scale: Tensor

    def __init__(
        self,
        kernels: Sequence[Kernel],
        schedule: Schedule,
        *,
        detach_forces: bool = False,
        precondition: Precondition = "none",
        latent_dim: int = 1,
        reverse: Reverse | None = None,
        decisions: Decisions = "sampled",
        clones: bool = False,
        tracks_spread: bool = False,
    ) -> None:
        super().__init__()
        self.decisions: Decisions = decisions
        self.clones = clones
        self.tracks_spread = tracks_spread
        self.checkpoints = False
        uniform = UniformStops if decisions == "stopped" else Uniform
        self.reverse: Reverse = uniform() if reverse is None else reverse
        self.precondition: Precondition = precondition
        self.register_buffer("scale", torch.ones(latent_dim))
        if schedule.num_steps != len(kernels):
            raise ValueError(f"{len(kernels)} kernels need a schedule of as many steps, not {schedule.num_steps}")
        self.kernels = nn.ModuleList(kernels)
        self.schedule = schedule
        self.detach_forces = detach_forces

    @property
    def num_steps(self) -> int:
        """K."""
        return len(self.kernels)

    @property
    def steps(self) -> list[Kernel]:
        """The kernels, in order."""
        return [kernel for kernel in self.kernels if isinstance(kernel, Kernel)]

    @property
    def is_adjusted(self) -> bool:
        """Whether there are steps and each of them accepts or rejects."""
        return self.num_steps > 0 and all(kernel.is_adjusted for kernel in self.steps)

    @property
    def is_invariant(self) -> bool:
        """Whether every step leaves its target invariant."""
        return self.is_adjusted and all(kernel.proposal.is_reversible for kernel in self.steps)

    @property
    def needs_score(self) -> bool:
        """Whether any kernel reads scores."""
        return any(kernel.proposal.needs_score for kernel in self.steps)

    @property
    def evaluations(self) -> int:
        """Evaluations of the decoder per chain: one at z_0, and those of each proposal.

        Enumerated decisions double the chains with each step, stops add one end with each; the exact reverse
        distribution looks back from each end; a copied decoder leaves the weighing of each end to the decoder itself.
        """
        each = [kernel.proposal.evaluations for kernel in self.steps]
        enumerated = self.decisions == "enumerated"
        forwards = sum(cost * (2**k if enumerated else 1) for k, cost in enumerate(each))
        back = sum(cost * 2**k for k, cost in enumerate(reversed(each))) if self.reverse.is_exact else 0
        ends = {"sampled": 1, "enumerated": 2 ** len(each), "stopped": 1 + len(each)}[self.decisions]
        return 1 + forwards + (back + self.clones) * ends

    def frame(self, mean: Tensor, scale: Tensor) -> Frame | None:
        """The coordinates of the moves for data whose q(z | x) has this mean and scale, (B, D)."""
        if self.precondition == "encoder":
            return Frame(mean, scale)
        return Frame(torch.zeros_like(self.scale), self.scale) if self.precondition == "adapted" else None

    def iterate(
        self, point: Point, path: AnnealedPath, *, create_graph: bool, betas: Tensor | None = None
    ) -> Iterator[tuple[Point, StepInfo]]:
        """Each next point and its record, K of them, one at a time. betas: (K,) in place of the schedule's."""
        for kernel, beta in zip(self.steps, self._betas(point.z, betas), strict=True):
            point, info = kernel.step(point, path, beta, create_graph=create_graph)
            yield point, info

    def forward(self, z: Tensor, path: AnnealedPath, *, create_graph: bool) -> Trajectory:
        """Run the chain from z (S, B, D): 1 + K evaluations of the path (1 + K * num_leapfrog for HMC)."""
        again = self.recomputation(z, path, create_graph)
        evaluate = partial(path.evaluate, z, create_graph=create_graph)
        initial = evaluate() if again is None else again(evaluate, lambda point: point.z)
        return self.run(initial, path, create_graph=create_graph, again=again)

    def run(
        self,
        initial: Point,
        path: AnnealedPath,
        *,
        create_graph: bool,
        betas: Tensor | None = None,
        again: Recomputation | None = None,
    ) -> Trajectory:
        """Run the chain from a point that has been evaluated: K evaluations of the path. betas: as of `iterate`.

        again: keeps no graph of a step, but computes it again in the backward pass
        """
        point, records, starts = initial, [], []
        for kernel, beta in zip(self.steps, self._betas(initial.z, betas), strict=True):
            starts.append(self.start_of(point, path, beta))
            step = partial(kernel.step, point, path, beta, create_graph=create_graph)
            point, info = step() if again is None else again(step, lambda found: found[0].z)
            records.append(info if self.reverse.is_exact else info._replace(noise=None))
        return make_trajectory(initial, point, records, starts)

    def _betas(self, like: Tensor, betas: Tensor | None) -> Sequence[Beta]:
        return self.schedule.betas(like) if betas is None else betas.to(like).unbind()

    def recomputation(self, z: Tensor, path: AnnealedPath, create_graph: bool) -> Recomputation | None:
        """What computes a chain from z again in the backward pass; None where its graph is kept, or there is none."""
        return Recomputation(path, z.device) if self.checkpoints and create_graph else None

    def start_of(self, point: Point, path: AnnealedPath, beta: Beta) -> StepStart:
        """What the trajectory keeps of the start of a step."""
        if not self.tracks_spread:
            return StepStart(point.log_final.detach(), None)
        score = path.score(point, beta).detach()
        moments = torch.stack([score.mean((0, 1)), score.std((0, 1), unbiased=False)])
        return StepStart(point.log_final.detach(), moments)
