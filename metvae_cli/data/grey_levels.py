"""Grey levels 0..255 as what a model sees: floats, dequantized values, or pixels drawn with the levels as odds."""

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

    `torch.randint` takes 32 random bits for each on a CPU; here eight come from 64 bits, at a third of its cost. What
    is done about those that are 255 is one operation more for each of a few of them.
    """
    if like.device.type != "cpu":
        return torch.randint(0, WHITE, like.shape, dtype=torch.uint8, device=like.device)
    words = torch.empty(-(-like.numel() // _IN_A_WORD), dtype=torch.int64)
    words.random_(-(2**63), None)  # all 64 bits
    levels = words.view(torch.uint8).view(-1, _IN_A_WORD)
    # Eight answers are looked through at a time. A tensor of 255 is compared ten times as fast as the number.
    there = (levels == torch.full_like(levels, WHITE)).view(torch.int64).flatten().nonzero().flatten()
    found = levels.index_select(0, there)
    again = torch.randint(0, WHITE, found.shape, dtype=torch.uint8)
    levels.index_copy_(0, there, torch.where(found == WHITE, again, found))
    return levels.flatten()[: like.numel()].view(like.shape)
