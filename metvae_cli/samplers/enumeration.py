"""Decisions summed out: every history of accept and reject, with its probability, in place of one that is drawn.

enumerated  A step sends each chain both ways, so K steps leave 2^K chains and cost 2^K - 1 moves.
stopped     A chain stops for good where it is first rejected, so K steps leave K + 1 chains and cost K moves: those
            that stopped after 0, 1, ..., K - 1 moves, and the one that made all of them.

The expectation over decisions is then a sum, and the gradient needs no score-function term. Of a mean of weights of the
path bookkeeping the probability of each history cancels against that in its weight, so that no gradient need pass
through the tests at all (`through_tests=False`), unless r is exact, which is made of those probabilities.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Beta, Point, concatenate
from metvae_cli.kernels.base import Kernel, StepInfo, StepNoise
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.recomputation import Recomputation
from metvae_cli.samplers.trajectory import StepStart, Trajectory, make_trajectory


class Histories(NamedTuple):
    """All H histories of each of S chains; H is 2^K, or K + 1 of chains that stop.

    trajectory: of H S chains, the S chains of one history after those of another
    log_probability: (H, S, B) of each history, with its graph; -inf where it cannot happen
    """

    trajectory: Trajectory
    log_probability: Tensor

    def expectation(self, values: Tensor) -> Tensor:
        """Mean over histories of values (H S, B): (S, B)."""
        return (self.log_probability.exp() * values.view_as(self.log_probability)).sum(0)

    def log_expectation(self, log_values: Tensor) -> Tensor:
        """log of the mean over histories of e^log_values, log_values (H S, B): (S, B)."""
        return (self.log_probability + log_values.view_as(self.log_probability)).logsumexp(0)

    def _log_share(self, log_values: Tensor) -> Tensor:
        """Of each history in the mean of e^log_values; that of its probability where all are zero."""
        log_share = (self.log_probability + log_values.view_as(self.log_probability)).log_softmax(0)
        return torch.where(log_share.isnan(), self.log_probability, log_share)

    @torch.no_grad()
    def draw(self, log_values: Tensor | None = None) -> Trajectory:
        """The trajectory of one history per chain, without a graph.

        It is drawn by its probability or, given log-weights (H S, B), by its share of the mean weight: the histories
        resampled, whose end is nearer to the target.
        """
        count, num_samples = self.log_probability.shape[:2]
        log_share = self.log_probability if log_values is None else self._log_share(log_values)
        probability = log_share.exp()
        # By one uniform number per chain, (S, B): what a datum gets does not depend on how its batch is shared out.
        passed = probability.cumsum(0) < torch.rand_like(probability[0])
        chosen = passed.sum(0).clamp(max=count - 1)

        def pick(values: Tensor, lead: int) -> Tensor:
            """values (..., H S, B, ...), with `lead` dimensions before: those of the chosen history."""
            split = values.unflatten(lead, (count, num_samples))
            index = chosen.view((1,) * lead + (1, *chosen.shape) + (1,) * (split.dim() - lead - 3))
            shape = (*split.shape[:lead], 1, *split.shape[lead + 1 :])
            return split.gather(lead, index.expand(shape)).squeeze(lead)

        def pick_point(point: Point) -> Point:
            return Point(*(None if t is None else pick(t, 0) for t in point))  # pyright: ignore[reportArgumentType]

        found = self.trajectory
        info = StepInfo(*(pick(entry, 1) for entry in found.info[:-1]))  # pyright: ignore[reportArgumentType]
        start = Point(*(None if t is None else t[:num_samples] for t in found.initial))  # pyright: ignore
        end, log_final = pick_point(found.final), pick(found.log_final, 1)
        return Trajectory(start, end, info, [None] * len(found.noise), log_final, found.score_moments)


def histories_of(
    sampler: Sampler, z: Tensor, path: AnnealedPath, *, create_graph: bool, through_tests: bool = True
) -> Histories:
    """Those of the chains that start at z (S, B, D), as the sampler's decisions say.

    through_tests: the gradient passes through the probabilities of the decisions
    """
    follow = enumerate_stops if sampler.decisions == "stopped" else enumerate_decisions
    return follow(sampler, z, path, create_graph=create_graph, through_tests=through_tests)


class Branches(NamedTuple):
    """Both outcomes of a step, from the same point.

    log_accept, log_reject: (S, B), their log-probabilities; -inf where one cannot happen
    """

    taken: Point
    info_taken: StepInfo
    left: Point
    info_left: StepInfo
    log_accept: Tensor
    log_reject: Tensor


class _Steps:
    """The steps of a sampler, each followed both ways; see `histories_of` for what is given."""

    def __init__(self, sampler: Sampler, path: AnnealedPath, *, create_graph: bool, through_tests: bool) -> None:
        self.sampler, self.path = sampler, path
        self.create_graph, self.through_tests = create_graph, through_tests
        self.again: Recomputation | None = None

    def begin(self, z: Tensor) -> Point:
        """The path at z; steps from there on keep no graph if the sampler says so."""
        self.again = self.sampler.recomputation(z, self.path, self.create_graph)
        evaluate = partial(self.path.evaluate, z, create_graph=self.create_graph)
        return evaluate() if self.again is None else self.again(evaluate, lambda point: point.z)

    def branch(self, kernel: Kernel, point: Point, beta: Beta) -> Branches:
        """Both outcomes of one step from a point."""
        assert isinstance(kernel, MetropolisHastings)
        both = partial(self._both, kernel, point, beta)
        return both() if self.again is None else self.again(both, lambda found: found.taken.z)

    def _both(self, kernel: MetropolisHastings, point: Point, beta: Beta) -> Branches:
        attempt = kernel.attempt(point, self.path, beta, create_graph=self.create_graph)
        attempt = attempt if self.through_tests else attempt.without_graph()
        never = torch.zeros_like(attempt.finite)
        taken, info_taken = kernel.outcome(attempt, ~never)
        left, info_left = kernel.rejection(attempt), kernel.record(attempt, never)
        if not self.sampler.reverse.is_exact:
            info_taken, info_left = info_taken._replace(noise=None), info_left._replace(noise=None)
        log_accept = torch.where(attempt.finite, attempt.log_accept, -torch.inf)
        log_reject = torch.where(attempt.finite, attempt.log_reject, 0.0)
        log_reject = torch.where(kernel.can_reject(attempt), log_reject, -torch.inf)
        return Branches(taken, info_taken, left, info_left, log_accept, log_reject)


def enumerate_decisions(
    sampler: Sampler, z: Tensor, path: AnnealedPath, *, create_graph: bool, through_tests: bool = True
) -> Histories:
    """All histories of the chains that start at z (S, B, D): 2^K evaluations of the path (for moves of one each)."""
    steps = _Steps(sampler, path, create_graph=create_graph, through_tests=through_tests)
    initial = point = steps.begin(z)
    records: list[StepInfo] = []
    starts: list[StepStart] = []
    log_probability = torch.zeros_like(point.log_final)
    for kernel, beta in zip(sampler.steps, sampler.schedule.betas(z), strict=True):
        starts.append(sampler.start_of(point, path, beta))
        found = steps.branch(kernel, point, beta)
        initial, point = concatenate(initial, initial), concatenate(found.taken, found.left)
        records = [*(join(record, record) for record in records), join(found.info_taken, found.info_left)]
        starts = [start._replace(log_final=torch.cat([start.log_final, start.log_final])) for start in starts]
        log_probability = torch.cat([log_probability + found.log_accept, log_probability + found.log_reject])
    trajectory = make_trajectory(initial, point, records, starts)
    return Histories(trajectory, log_probability.unflatten(0, (-1, len(z))))


def enumerate_stops(
    sampler: Sampler, z: Tensor, path: AnnealedPath, *, create_graph: bool, through_tests: bool = True
) -> Histories:
    """All stops of the chains that start at z (S, B, D): 1 + K evaluations of the path (for moves of one each).

    What has stopped takes part in no later step; the records of those steps say how the chain that went on fared.
    """
    steps = _Steps(sampler, path, create_graph=create_graph, through_tests=through_tests)
    initial = point = steps.begin(z)
    moving = torch.zeros_like(point.log_final)  # log-probability of having moved at every step so far
    stopped: list[Point] = []
    log_probability: list[Tensor] = []
    records: list[StepInfo] = []
    starts: list[StepStart] = []
    for kernel, beta in zip(sampler.steps, sampler.schedule.betas(z), strict=True):
        start = sampler.start_of(point, path, beta)
        found = steps.branch(kernel, point, beta)
        before, after = len(stopped), sampler.num_steps - len(stopped)
        over = _over(found.info_left)
        records.append(join(*[over] * before, found.info_left, *[found.info_taken] * after))
        starts.append(start._replace(log_final=torch.cat([start.log_final] * (sampler.num_steps + 1))))
        stopped.append(found.left)
        log_probability.append(moving + found.log_reject)
        point, moving = found.taken, moving + found.log_accept
    ends = concatenate(*stopped, point)
    begins = concatenate(*[initial] * (sampler.num_steps + 1))
    return Histories(make_trajectory(begins, ends, records, starts), torch.stack([*log_probability, moving]))


def _over(info: StepInfo) -> StepInfo:
    """The record of a step for a chain that had stopped before: it adds nothing to the weight."""
    zero = torch.zeros_like(info.log_path)
    return info._replace(log_reversal=zero, log_path=zero, log_alpha=zero, log_choice=zero)


def join(*infos: StepInfo) -> StepInfo:
    """Records of groups of chains as one."""
    joined = StepInfo(*map(torch.cat, zip(*(info[:-1] for info in infos), strict=True)))  # pyright: ignore
    noises = [info.noise for info in infos if info.noise is not None]
    if len(noises) < len(infos):
        return joined

    def join_noise(entries: tuple[Tensor | None, ...]) -> Tensor | None:
        known = [entry for entry in entries if entry is not None]
        return torch.cat(known) if len(known) == len(entries) else None

    return joined._replace(noise=StepNoise(*map(join_noise, zip(*noises, strict=True))))
