"""Grey levels 0..255 as what a model sees: floats, dequantized values, or pixels drawn with the levels as odds."""

import numpy as np
import torch
from torch import Tensor

WHITE = 255
_IN_A_WORD = 8  # levels, of one byte each, in 64 random bits


def as_float(values: Tensor) -> Tensor:
    """Grey levels 0..255 to [0, 1]; floats unchanged."""
    return values.float().div_(255.0) if values.dtype == torch.uint8 else values


def dequantized(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Grey levels 0..255 to (k + u) / 256, u uniform in [0, 1): continuous values in [0, 1)."""
    noise = torch.rand(values.shape, device=values.device, generator=generator)
    return noise.add_(values).div_(256)


def drawn_pixels(values: Tensor) -> Tensor:
    """0 or 1 for each grey level k, 1 with probability k / 255, as float32; floats are probabilities."""
    if values.dtype != torch.uint8:
        return torch.bernoulli(values)
    # A uniform level in 0..254 is below k with probability exactly k / 255. In place, since booleans become floats
    # four times as slowly as bytes do.
    return random_levels(values).lt_(values).float()


def random_levels(like: Tensor) -> Tensor:
    """Uniform draws of 0..254 of the shape and on the device of `like`, uint8.

    `torch.randint` takes 32 random bits for each on a CPU; here eight come from 64 bits, and those few that are 255 are
    drawn anew, which together takes two thirds of its time.
    """
    if like.device.type != "cpu":
        return torch.randint(0, WHITE, like.shape, dtype=torch.uint8, device=like.device)
    words = torch.empty(-(-like.numel() // _IN_A_WORD), dtype=torch.int64)
    levels = words.random_(-(2**63), None).view(torch.uint8)  # all 64 bits
    # The same memory: NumPy finds few among many several times as fast.
    found = levels.numpy()
    white = np.flatnonzero(found == WHITE)
    found[white] = torch.randint(0, WHITE, white.shape, dtype=torch.uint8).numpy()
    return levels[: like.numel()].view(like.shape)
