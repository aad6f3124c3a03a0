"""Decisions summed out: every history of accept and reject, with its probability, in place of one that is drawn.

enumerated  A step sends each chain both ways, so K steps leave 2^K chains and cost 2^K - 1 moves.
stopped     A chain stops for good where it is first rejected, so K steps leave K + 1 chains and cost K moves: those
            that stopped after 0, 1, ..., K - 1 moves, and the one that made all of them.

The expectation over decisions is then a sum, and the gradient needs no score-function term. Of a mean of weights of the
path bookkeeping the probability of each history cancels against that in its weight, so that no gradient need pass
through the tests at all (`through_tests=False`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Point, concatenate
from metvae_cli.kernels.base import StepInfo, StepNoise
from metvae_cli.kernels.metropolis_hastings import Attempt, MetropolisHastings
from metvae_cli.samplers.chain import Sampler
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
        return Trajectory(
            start,
            pick_point(found.final),
            info,
            [None] * len(found.noise),
            pick(found.log_final, 1),
            found.score_moments,
        )


def histories_of(
    sampler: Sampler, z: Tensor, path: AnnealedPath, *, create_graph: bool, through_tests: bool = True
) -> Histories:
    """Those of the chains that start at z (S, B, D), as the sampler's decisions say.

    through_tests: the gradient passes through the probabilities of the decisions
    """
    follow = enumerate_stops if sampler.decisions == "stopped" else enumerate_decisions
    return follow(sampler, z, path, create_graph=create_graph, through_tests=through_tests)


def enumerate_decisions(
    sampler: Sampler, z: Tensor, path: AnnealedPath, *, create_graph: bool, through_tests: bool = True
) -> Histories:
    """All histories of the chains that start at z (S, B, D): 2^K evaluations of the path (for moves of one each)."""
    initial = point = path.evaluate(z, create_graph=create_graph)
    records: list[StepInfo] = []
    starts: list[StepStart] = []
    log_probability = torch.zeros_like(point.log_final)
    for kernel, beta in zip(sampler.steps, sampler.schedule.betas(z), strict=True):
        assert isinstance(kernel, MetropolisHastings)
        starts.append(sampler.start_of(point, path, beta))
        attempt = kernel.attempt(point, path, beta, create_graph=create_graph)
        attempt = attempt if through_tests else attempt.without_graph()
        (taken, info_taken), (left, info_left) = _both_ways(kernel, attempt)
        initial, point = concatenate(initial, initial), concatenate(taken, left)
        records = [*(join(record, record) for record in records), join(info_taken, info_left)]
        starts = [start._replace(log_final=torch.cat([start.log_final, start.log_final])) for start in starts]
        log_probability = _both(kernel, attempt, log_probability)
    trajectory = make_trajectory(initial, point, records, starts)
    return Histories(trajectory, log_probability.unflatten(0, (-1, len(z))))


def enumerate_stops(
    sampler: Sampler, z: Tensor, path: AnnealedPath, *, create_graph: bool, through_tests: bool = True
) -> Histories:
    """All stops of the chains that start at z (S, B, D): 1 + K evaluations of the path (for moves of one each).

    What has stopped takes part in no later step; the records of those steps say how the chain that went on fared.
    """
    initial = point = path.evaluate(z, create_graph=create_graph)
    moving = torch.zeros_like(point.log_final)  # log-probability of having moved at every step so far
    stopped: list[Point] = []
    log_probability: list[Tensor] = []
    records: list[StepInfo] = []
    starts: list[StepStart] = []
    for kernel, beta in zip(sampler.steps, sampler.schedule.betas(z), strict=True):
        assert isinstance(kernel, MetropolisHastings)
        start = sampler.start_of(point, path, beta)
        attempt = kernel.attempt(point, path, beta, create_graph=create_graph)
        attempt = attempt if through_tests else attempt.without_graph()
        (taken, info_taken), (left, info_left) = _both_ways(kernel, attempt)
        before, after = len(stopped), sampler.num_steps - len(stopped)
        records.append(join(*[_over(info_left)] * before, info_left, *[info_taken] * after))
        starts.append(start._replace(log_final=torch.cat([start.log_final] * (sampler.num_steps + 1))))
        accept, reject = _both(kernel, attempt, moving).chunk(2)
        stopped.append(left)
        log_probability.append(reject)
        point, moving = taken, accept
    ends = concatenate(*stopped, point)
    begins = concatenate(*[initial] * (sampler.num_steps + 1))
    return Histories(make_trajectory(begins, ends, records, starts), torch.stack([*log_probability, moving]))


def _over(info: StepInfo) -> StepInfo:
    """The record of a step for a chain that had stopped before: it adds nothing to the weight."""
    zero = torch.zeros_like(info.log_path)
    return info._replace(log_reversal=zero, log_path=zero, log_alpha=zero, log_choice=zero)


def _both_ways(kernel: MetropolisHastings, attempt: Attempt) -> list[tuple[Point, StepInfo]]:
    """The outcomes of accepting and of rejecting."""
    return [kernel.outcome(attempt, torch.full_like(attempt.finite, decision)) for decision in (True, False)]


def _both(kernel: MetropolisHastings, attempt: Attempt, log_probability: Tensor) -> Tensor:
    """Log-probabilities of the histories that accept, then of those that reject; -inf where one cannot happen."""
    zero = torch.zeros_like(log_probability)
    accept = torch.where(attempt.finite, log_probability + attempt.log_accept, -torch.inf)
    reject = log_probability + torch.where(attempt.finite, attempt.log_reject, zero)
    return torch.cat([accept, torch.where(kernel.can_reject(attempt), reject, -torch.inf)])


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
