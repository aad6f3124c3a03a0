"""One row of the table: a method, its floor and a plain VAE of the same net, timed in turns."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from typing import cast

import torch
from torch import nn

from benchmarks.contenders import Case, Contender, Machine, latents_decoded, make_contender, training
from benchmarks.floor import floor
from benchmarks.measuring import Budget, Neighbours, Quartiles, live_megabytes, peak_megabytes, take_turns

NOISY = 1.25  # third quartile over the first
NEIGHBOURS = 0.1  # share of the cores


@dataclass(frozen=True)
class Row:
    """What a row says.

    ms, ms_low, ms_high: per iteration, median and quartiles of the blocks; floor_ms, vae_ms: medians of the other two
    images_per_second: by the median
    decoded, decoded_expected: latent vectors that went through the decoder, and that the method needs
    times_floor, times_vae: ratios of medians
    peak_mb: of one iteration, above what was there: CUDA's allocations, or on a CPU what autograd keeps
    rss_mb: largest resident size of a process of its own that makes a few iterations; None where not asked for
    neighbours: cores that other programs kept busy while the row was timed
    noisy: for them, or since the quartiles of a contender lie far apart, the row should be measured again
    """

    net: str
    method: str
    steps: int
    samples: int
    leapfrogs: int
    batch: int
    ms: float
    ms_low: float
    ms_high: float
    images_per_second: float
    decoded: int
    decoded_expected: int
    floor_ms: float
    times_floor: float
    vae_ms: float
    times_vae: float
    peak_mb: float
    rss_mb: float | None
    neighbours: float
    noisy: bool


def measure(case: Case, machine: Machine, budget: Budget, *, rss: bool) -> Row:
    """Time a row, and count."""
    method, beneath = make_contender(case, machine), make_contender(case, machine)
    vae = make_contender(Case(case.net, "vae", 0, case.words), machine)
    decoded = count_decoded(method)
    peak = saved_megabytes(method)
    runs = {"method": training(method), "floor": floor(beneath), "vae": training(vae)}
    neighbours = Neighbours()
    times = take_turns(runs, budget)
    busy = neighbours.cores()
    ms, batch = times["method"], len(method.x)
    return Row(
        net=case.net,
        method=case.method,
        steps=case.steps,
        samples=method.experiment.learner.objective.num_samples,
        leapfrogs=method.leapfrogs,
        batch=batch,
        ms=ms.median,
        ms_low=ms.low,
        ms_high=ms.high,
        images_per_second=1000 * batch / ms.median,
        decoded=decoded,
        decoded_expected=method.expected,
        floor_ms=times["floor"].median,
        times_floor=ms.median / times["floor"].median,
        vae_ms=times["vae"].median,
        times_vae=ms.median / times["vae"].median,
        peak_mb=peak,
        rss_mb=resident_megabytes(case, machine) if rss else None,
        neighbours=busy,
        noisy=is_noisy(times.values(), busy),
    )


def is_noisy(times: Iterable[Quartiles], busy: float) -> bool:
    """Whether something else was running: quartiles lie far apart, or other programs kept so many cores busy."""
    return busy > NEIGHBOURS * (os.cpu_count() or 1) or any(of.high > NOISY * of.low for of in times)


def count_decoded(contender: Contender) -> int:
    """Latent vectors that one iteration decodes."""
    with latents_decoded(cast(nn.Module, contender.experiment.learner.model.decoder)) as passes:
        training(contender)(1)
    return sum(map(len, passes))


def saved_megabytes(contender: Contender) -> float:
    """Peak memory of one iteration above what was there before."""
    learner = contender.experiment.learner
    own = chain(learner.model.parameters(), learner.sampler.parameters())
    if learner.sampler.checkpoints and not torch.cuda.is_initialized():
        return live_megabytes(training(contender))  # what is kept in the graph's place, autograd does not see
    return peak_megabytes(training(contender), own)


def resident_megabytes(case: Case, machine: Machine) -> float:
    """Largest resident size of a process that makes a few iterations of the row."""
    words = json.dumps([asdict_machine(machine), case])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.resident", words], capture_output=True, text=True, check=True, env=os.environ
    )
    return float(done.stdout)


def asdict_machine(machine: Machine) -> dict[str, object]:
    """What another process can read."""
    return machine._asdict() | {"images": str(machine.images)}


HEAD = (
    f"{'net':6}{'method':12}{'K':>3}{'S':>4}{'L':>3}{'ms':>9}  {'quartiles':16}{'img/s':>8}{'decoded':>9}{'needed':>8}"
    f"{'floor ms':>9}{'x floor':>8}{'x VAE':>7}{'peak MB':>9}{'others':>8}"
)


def line(row: Row) -> str:
    """The row on the screen."""
    spread = f"{row.ms_low:.1f} to {row.ms_high:.1f}"
    mark = " ~" if row.noisy else ""
    resident = "" if row.rss_mb is None else f"{row.rss_mb:9.0f}"
    return (
        f"{row.net:6}{row.method:12}{row.steps:3}{row.samples:4}{row.leapfrogs:3}{row.ms:9.2f}  {spread:16}"
        f"{row.images_per_second:8.0f}{row.decoded:9}{row.decoded_expected:8}{row.floor_ms:9.2f}"
        f"{row.times_floor:8.2f}{row.times_vae:7.1f}{row.peak_mb:9.1f}{row.neighbours:8.2f}{resident}{mark}"
    )


def record(row: Row) -> dict[str, object]:
    """The row for a file."""
    return asdict(row)
