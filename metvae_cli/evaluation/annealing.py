"""Annealed importance sampling (Neal 2001; Wu et al. 2017) with Hamiltonian steps.

From z_0 of the path's start, along 0 = beta_0 < ... < beta_T = 1,

    log w = sum_t (beta_t - beta_{t-1}) [log_final - log_initial](z_{t-1}),      z_t ~ HMC step invariant for beta_t,

so that E[w] = p(x) and E[log of the mean of w] is at most log p(x). Step sizes are tuned on a pilot run with other
random numbers and then stay as they are: tuning them on the run itself would spoil E[w]. Memory does not grow with T.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Point
from metvae_cli.evaluation.streams import DatumStreams
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.step_size import StepSize

ScheduleName = Literal["sigmoid", "linear"]
StartName = Literal["prior", "encoder"]

_SEGMENTS = 20
PILOT_TEMPERATURES = 300
_GAIN = 0.2
_GOLDEN_RATIO = (5**0.5 - 1) / 2  # its multiples fill (0, 1) evenly
_MOST_TEMPERATURES, _MOST_AT_ONCE = 10_000_000, 100_000
_LEAST_STEP, _LARGEST_STEP = 1e-5, 10.0


class AnnealingSettings:
    """How annealing is done.

    Args:
        num_temperatures: T
        num_chains: S, per datum
        num_leapfrog: of each Hamiltonian step, one value and score of the decoder each
        schedule: `sigmoid` spends more temperatures at both ends
        sharpness: of the sigmoid: it runs from -sharpness to sharpness
        target_accept: of the pilot run. With long trajectories and a low target the leapfrog is chaotic: the last digit
            of a sum then decides where a chain goes, and chunk and device would change the answer
        start: the path begins at the prior or at the encoder
        data: at most so many data, evenly spread over the split; null is all
        repeats: with other random numbers
        chunk: chains advanced at a time; changes memory and speed only

    Raises:
        ValueError: a number is out of range
    """

    def __init__(
        self,
        num_temperatures: int = 1000,
        num_chains: int = 10,
        num_leapfrog: int = 2,
        schedule: ScheduleName = "sigmoid",
        sharpness: float = 4.0,
        target_accept: float = 0.8,
        start: StartName = "prior",
        data: int | None = 50,
        repeats: int = 1,
        chunk: int = 1000,
    ) -> None:
        counts = {"num_chains": num_chains, "num_leapfrog": num_leapfrog, "repeats": repeats, "chunk": chunk}
        if data is not None:
            counts["data"] = data
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if num_temperatures < 2:
            raise ValueError(f"num_temperatures={num_temperatures}: must be at least 2")
        most = {"num_temperatures": _MOST_TEMPERATURES, "num_chains": _MOST_AT_ONCE, "chunk": _MOST_AT_ONCE}
        for name, largest in most.items():
            value = num_temperatures if name == "num_temperatures" else counts[name]
            if value > largest:
                raise ValueError(f"{name}={value}: must be at most {largest}, which fits into memory")
        if not 0 < target_accept < 1:
            raise ValueError(f"target_accept={target_accept}: must lie between 0 and 1, both excluded")
        if not (sharpness > 0 and math.isfinite(sharpness)):
            raise ValueError(f"sharpness={sharpness}: must be positive and finite")
        self.num_temperatures, self.num_chains, self.num_leapfrog = num_temperatures, num_chains, num_leapfrog
        self.target_accept, self.data, self.repeats, self.chunk = target_accept, data, repeats, chunk
        self.start: StartName = start
        self.schedule: ScheduleName = schedule
        self.sharpness = sharpness

    def betas(self, num_temperatures: int) -> Tensor:
        """0 = beta_0 < ... < beta_T = 1, (T + 1,), in double precision."""
        times = torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64)
        if self.schedule == "linear":
            return times
        curve = torch.sigmoid(self.sharpness * (2 * times - 1))
        return (curve - curve[0]) / (curve[-1] - curve[0])


class Annealed(NamedTuple):
    """log_weights: (S, B), in double precision. accept_prob: mean over steps, chains and data."""

    log_weights: Tensor
    accept_prob: float


def log_mean(log_weights: Tensor) -> Tensor:
    """Logarithm of the mean over chains, (B,)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def pilot(
    path: AnnealedPath,
    start: Tensor,
    settings: AnnealingSettings,
    streams: DatumStreams,
    between: Callable[[int], None],
) -> Tensor:
    """Step sizes of each segment of the schedule and each datum, (segments, B).

    They reach the target acceptance on a run from `start` (S, B, D), whose weights are thrown away.
    """
    num_temperatures = PILOT_TEMPERATURES  # step sizes are a function of the place along the schedule
    betas = settings.betas(num_temperatures)
    stepper = _Stepper(path, settings.num_leapfrog, streams)
    log_step = start.new_full((start.shape[1],), math.log(0.1))
    sums, counts = log_step.new_zeros(_SEGMENTS, len(log_step)), log_step.new_zeros(_SEGMENTS, 1)
    point = path.evaluate(start, create_graph=False)
    for t in range(1, num_temperatures):
        between(t)
        point, accept_prob = stepper.step(point, betas[t], _varied(log_step.exp(), t))
        log_step = log_step + _GAIN * (accept_prob.mean(0) - settings.target_accept)
        log_step = log_step.clamp(math.log(_LEAST_STEP), math.log(_LARGEST_STEP))
        segment = _segment(t, num_temperatures)
        sums[segment] += log_step
        counts[segment] += 1
    return _filled(sums, counts).exp()


def anneal(
    path: AnnealedPath,
    start: Tensor,
    tuned: Tensor,
    settings: AnnealingSettings,
    streams: DatumStreams,
    between: Callable[[int], None],
    *,
    backwards: bool = False,
) -> Annealed:
    """Run the chains from `start` (S, B, D) along the path with step sizes of `pilot`, or, from draws of its end, back.

    Backwards, E[w] = 1 / p(x), if the start is an exact draw of the posterior: the weights of the reversed run.
    """
    num_temperatures = settings.num_temperatures
    betas = settings.betas(num_temperatures)
    order = range(num_temperatures, -1, -1) if backwards else range(num_temperatures + 1)
    stepper = _Stepper(path, settings.num_leapfrog, streams)
    point, acceptance = path.evaluate(start, create_graph=False), 0.0
    exact = torch.float32 if start.device.type == "mps" else torch.float64
    log_weights = torch.zeros(start.shape[:2], dtype=exact, device=start.device)
    for count, (before, t) in enumerate(pairwise(order), start=1):
        between(count)
        log_weights += (betas[t] - betas[before]).item() * (point.log_final - point.log_initial).to(exact)
        if t in (0, num_temperatures):
            break  # a step at the far end would change no weight
        step_sizes = _varied(tuned[_segment(t, num_temperatures)], t)
        point, accept_prob = stepper.step(point, betas[t], step_sizes)
        acceptance += accept_prob.mean().item() / (num_temperatures - 1)
    return Annealed(log_weights, acceptance)


class _Stepper:
    """Hamiltonian steps with a step size for each datum and random numbers of each datum's own stream."""

    def __init__(self, path: AnnealedPath, num_leapfrog: int, streams: DatumStreams) -> None:
        self._path, self._streams = path, streams
        self._step_size = StepSize(1.0)
        self._kernel = MetropolisHastings(Hamiltonian(self._step_size, num_leapfrog), Acceptance.METROPOLIS)

    def step(self, point: Point, beta: Tensor, step_sizes: Tensor) -> tuple[Point, Tensor]:
        """The next point and the probability of acceptance, (S, B). step_sizes: (B,)."""
        self._step_size.log_value = step_sizes.log()[:, None]  # broadcast over chains and dimensions
        num_samples, _, dim = point.z.shape
        beta = beta.to(point.z)
        momentum = self._streams.normal(num_samples, dim)
        attempt = self._kernel.attempt(point, self._path, beta, create_graph=False, noise=momentum)
        decision = self._streams.log_uniform(num_samples) < attempt.log_accept
        point, info = self._kernel.outcome(attempt, decision)
        return point, info.accept_prob


def _varied(step_sizes: Tensor, t: int) -> Tensor:
    """Step sizes of temperature t, spread evenly over 3/4 to 5/4 of the tuned ones.

    With one and the same, a trajectory may be a period of a Gaussian posterior and lead nowhere. A function of t alone,
    so that the step at t is the same kernel on the way back.
    """
    return (0.75 + 0.5 * (t * _GOLDEN_RATIO % 1)) * step_sizes


def _segment(t: int, num_temperatures: int) -> int:
    """The segment of the schedule that holds temperature t, 0 < t < T."""
    return min(_SEGMENTS - 1, _SEGMENTS * t // num_temperatures)


def _filled(sums: Tensor, counts: Tensor) -> Tensor:
    """Means of the segments; of one that a short schedule has passed over, that of the nearest one before or after."""
    filled = torch.nonzero(counts[:, 0] > 0)[:, 0]
    nearest = (torch.arange(_SEGMENTS, device=filled.device)[:, None] - filled).abs().argmin(1)
    return (sums / counts.clamp(min=1))[filled[nearest]]
