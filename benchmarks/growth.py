"""How the cost of L-MCVAE grows: with steps, chains, latent size, width, batch and threads, one of them at a time.

All values of one quantity take turns, and a straight line a + b v is fitted to their medians: to three of them at
least, and not over threads, of which the cost is no such function.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.contenders import Case, Machine, Run, make_contender, training
from benchmarks.measuring import Budget, Neighbours, take_turns
from benchmarks.rows import is_noisy

STEPS = 5
# What stands on the command line for each value.
WORDS = {
    "K": ("sampler.num_steps={}",),
    "S": ("objective.num_samples={}",),
    "latent": ("latent_dim={}",),
    "width": ("encoder.hidden=[{}]", "decoder.hidden=[{}]"),
    "batch": ("dataset.batch_size={}",),
    "threads": (),
}
VALUES = {
    "fc400": {
        "K": (1, 2, 3, 5, 10, 20),
        "S": (1, 2, 5, 10),
        "latent": (16, 64, 128, 256),
        "width": (100, 200, 400, 800),
        "batch": (25, 50, 100, 200, 400),
    },
    "conv": {"K": (1, 2, 5), "S": (1, 2, 3), "batch": (25, 50, 100)},
}
QUICK = {"fc400": {"K": (1, 2, 5), "batch": (25, 50, 100)}, "conv": {"K": (1, 2, 3)}}


def thread_counts() -> tuple[int, ...]:
    """Powers of two up to the cores of this machine."""
    return tuple(2**power for power in range((os.cpu_count() or 1).bit_length()) if 2**power <= (os.cpu_count() or 1))


def measure_growth(
    net: str, quantity: str, values: Sequence[int], machine: Machine, budget: Budget, words: tuple[str, ...] = ()
) -> dict[str, object]:
    """Medians for each value, and the law fitted to them."""
    runs = {str(value): _run(net, quantity, value, machine, words) for value in values}
    neighbours = Neighbours()
    times = take_turns(runs, budget)
    busy = neighbours.cores()
    medians = [times[str(value)].median for value in values]
    return {
        "net": net,
        "quantity": quantity,
        "values": list(values),
        "ms": medians,
        "ms_low": [times[str(value)].low for value in values],
        "ms_high": [times[str(value)].high for value in values],
        "neighbours": busy,
        "noisy": is_noisy(times.values(), busy),
        "law": law(values, medians) if len(values) > 2 and quantity != "threads" else None,
    }


def law(values: Sequence[int], medians: Sequence[float]) -> dict[str, float]:
    """ms = intercept + slope * value by least squares of relative errors; the largest of them."""
    x, y = np.asarray(values, float), np.asarray(medians)
    slope, intercept = np.polyfit(x, y, 1, w=1 / y)
    off = np.abs((intercept + slope * x) / y - 1)
    return {"intercept": float(intercept), "slope": float(slope), "largest_error": float(off.max())}


def _run(net: str, quantity: str, value: int, machine: Machine, words: tuple[str, ...]) -> Run:
    own = tuple(word.format(value) for word in WORDS[quantity])
    threads = value if quantity == "threads" else machine.threads
    steps = value if quantity == "K" else STEPS
    bare = training(make_contender(Case(net, "lmcvae", steps, (*words, *own)), machine._replace(threads=threads)))

    def run(count: int) -> None:
        torch.set_num_threads(threads)
        bare(count)

    return run


def lines(found: dict[str, object]) -> list[str]:
    """One quantity on the screen: a line of values, one of milliseconds, and the law."""
    values, ms = found["values"], found["ms"]
    assert isinstance(values, list)
    assert isinstance(ms, list)
    quantity = found["quantity"]
    fitted = ""
    if isinstance(line := found["law"], dict):
        error = 100 * line["largest_error"]
        fitted = f"   ms = {line['intercept']:.2f} + {line['slope']:.4g} {quantity}, off by {error:.0f} % at most"
    return [
        f"{found['net']:6}{quantity:8}" + "".join(f"{value:9}" for value in values),
        f"{'':6}{'ms':8}" + "".join(f"{value:9.2f}" for value in ms) + fitted + " ~" * bool(found["noisy"]),
    ]


def draw(found: Sequence[dict[str, object]], path: Path) -> None:
    """A panel for each quantity and net, with its law."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.6 * rows), squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for axis, one in zip(axes.flat, found, strict=False):
        x, y = np.asarray(one["values"], float), np.asarray(one["ms"], float)
        spread = np.abs(np.asarray([one["ms_low"], one["ms_high"]], float) - y)
        axis.errorbar(x, y, yerr=spread, fmt="o", markersize=4)
        if isinstance(line := one["law"], dict):
            axis.plot(x, line["intercept"] + line["slope"] * x, linewidth=1)
        axis.set(title=str(one["net"]), xlabel=str(one["quantity"]), ylabel="ms per iteration", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
