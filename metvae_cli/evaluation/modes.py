"""Which modes of a target draws have found, and in what shares (the count of MetFlow, arXiv 2002.12253)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.targets.base import Modes

# A mode counts as found with this share of the draws that it should have.
_LEAST_SHARE = 0.1


class ModeCount(NamedTuple):
    """found: number of modes found. shares: (M,), of the draws near each mode; weight_error: total variation between
    those of all draws near some mode and the weights that the modes have (NaN where no draw is near any).
    """

    found: int
    shares: Tensor
    weight_error: float


def count_modes(draws: Tensor, modes: Modes) -> ModeCount:
    """Count modes in draws (N, D).

    A draw belongs to its nearest mode if |z - centre|^2 < 4 D scale^2. A mode is found if a tenth of the share of the
    draws that it should have belongs to it.
    """
    z = draws.detach().double().cpu()
    centres = modes.centres.double()
    distance, nearest = torch.cdist(z, centres).min(1)
    near = distance < 2 * math.sqrt(z.shape[1]) * modes.scale
    counts = torch.bincount(nearest[near], minlength=len(centres)).double()
    shares = counts / len(z)
    error = 0.5 * (counts / counts.sum() - modes.weights).abs().sum().item()  # 0 / 0 is NaN
    return ModeCount(int((shares >= _LEAST_SHARE * modes.weights).sum()), shares, error)
