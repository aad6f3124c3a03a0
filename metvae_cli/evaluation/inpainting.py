"""In-painting by block Gibbs sampling: z given the whole picture, then the masked part given z, over and over.

    z ~ q_K(z | x_masked, x_observed)         x_masked ~ p(x_masked | z)

With exact draws of p(z | x) the masked part is, in the end, a draw of p(x_masked | x_observed). Here z is drawn as the
model was trained to do it, by the encoder and K steps of its chain: an approximation that gets better with K, as in
the experiments of MetFlow (arXiv 2002.12253).
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from metvae_cli.evaluation.coding import chain_positions
from metvae_cli.models.vae import VAE
from metvae_cli.samplers.chain import Sampler

MaskName = Literal["top", "bottom", "left", "right", "middle", "random"]


class Inpainted(NamedTuple):
    """States of the sampling, one datum each for B data.

    sweeps: (N,), after how many sweeps each was kept
    positions: (N, B, D), z
    draws: (N, B, *event), the data with the masked part as it was drawn
    means: (N, B, *event), the data with E[x | z] in the masked part
    """

    sweeps: Tensor
    positions: Tensor
    draws: Tensor
    means: Tensor


def mask_of(height: int, width: int, where: MaskName, share: float) -> Tensor:
    """True where a pixel is masked, (H, W) bool: about the share of all, never none and never all of them.

    `random` draws single pixels from torch's global random stream.

    Raises:
        ValueError: the picture has less than 2 rows or columns
    """
    if min(height, width) < 2:
        raise ValueError(f"a mask needs at least 2 rows and 2 columns, not {height} and {width}")
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    if where == "random":
        order = torch.randperm(height * width)
        return (order < _part(height * width, share)).view(height, width)
    if where == "middle":
        return _centred(rows, height, math.sqrt(share)) & _centred(columns, width, math.sqrt(share))
    masked = {
        "top": rows < _part(height, share),
        "bottom": rows >= height - _part(height, share),
        "left": columns < _part(width, share),
        "right": columns >= width - _part(width, share),
    }[where]
    return masked.expand(height, width).clone()


def _part(size: int, share: float) -> int:
    return min(max(1, round(share * size)), size - 1)


def _centred(places: Tensor, size: int, share: float) -> Tensor:
    first = (size - _part(size, share)) // 2
    return (places >= first) & (places < first + _part(size, share))


@torch.no_grad()
def forgotten(model: VAE, x: Tensor, masked: Tensor) -> Tensor:
    """x (B, *event) with its masked part drawn from the model, given nothing: where the sampling starts."""
    z = model.prior.sample(len(x), x.device)
    return torch.where(masked, model.decode(z[None]).sample()[0], x)


@torch.no_grad()
def block_gibbs(model: VAE, sampler: Sampler, start: Tensor, masked: Tensor, sweeps: int, frames: int) -> Inpainted:
    """Run the sampling; what is not masked stays as it is.

    Args:
        model: the decoder gives both the draws and the means
        sampler: its steps follow the encoder's draw of z; one without steps leaves that as it is
        start: (B, *event); its masked part is the first state
        masked: bool, broadcast to the data
        sweeps: draws of z and of the masked part
        frames: states to keep, evenly over the sweeps, with the last one; all, if there are fewer sweeps
    """
    kept = _evenly(sweeps, frames)
    x, states = start, []
    for sweep in range(1, sweeps + 1):
        z = chain_positions(model, sampler, x)[-1:]
        law = model.decode(z)
        x = torch.where(masked, law.sample()[0], x)
        if sweep in kept:
            states.append((z[0], x, torch.where(masked, law.mean[0], x)))
    positions, draws, means = (torch.stack(part) for part in zip(*states, strict=True))
    return Inpainted(torch.tensor(kept), positions, draws, means)


def _evenly(sweeps: int, frames: int) -> list[int]:
    count = min(frames, sweeps)
    return [sweeps * (frame + 1) // count for frame in range(count)]
