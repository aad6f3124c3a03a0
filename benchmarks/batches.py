"""What a training batch costs, per image: one gather and at most one random draw.

    python -m benchmarks.batches [batch size]

Synthetic images of MNIST's and CIFAR-10's shapes; the kinds take turns in one process, and the median and the quartiles
of 300 batches each are printed, in microseconds per image.
"""

import sys
import time

import torch

from metvae_cli.data.base import Dataset, Split
from metvae_cli.data.binarization import binarized_dataset

KINDS = {
    "dynamic": ("dynamic", False),
    "static": ("static", False),
    "grey levels": ("none", False),
    "dequantized": ("none", True),
}


def make(shape: tuple[int, ...], kind: str) -> Dataset:
    """A data set of 20 000 random images."""
    binarization, dequantize = KINDS[kind]
    pixels = Split(torch.randint(0, 256, (20_000, *shape), dtype=torch.uint8))
    few = Split(pixels.values[:10])
    return binarized_dataset("synthetic", pixels, few, few, binarization, 0, dequantize=dequantize)  # pyright: ignore


def seconds(dataset: Dataset, size: int) -> float:
    """Of one batch."""
    index = torch.randint(0, len(dataset.train), (size,))
    start = time.perf_counter()
    dataset.batch(index)
    return time.perf_counter() - start


def main() -> None:
    """Print a line for each shape and kind."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    torch.set_num_threads(1)  # a batch is too small to be shared out
    print(f"batch of {size}, one thread, torch {torch.__version__}")
    for shape in ((1, 28, 28), (3, 32, 32)):
        datasets = {kind: make(shape, kind) for kind in KINDS}
        taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for repeat in range(320):
            for kind, dataset in datasets.items():
                spent = seconds(dataset, size)
                if repeat >= 20:  # the first ones warm up
                    taken[kind].append(1e6 * spent / size)
        for kind, values in taken.items():
            low, middle, high = torch.tensor(values).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
            print(f"{shape!s:13} {kind:12} {middle:6.2f} us per image ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
