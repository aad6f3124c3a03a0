"""The step size of one kernel: fixed, learned through the bound, or adapted from outside."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

StepSizeRule = Literal["fixed", "learned", "adapted", "dual_averaging", "variance_sensitive"]


class StepSize(nn.Module):
    """A positive step size, kept as its logarithm.

    Args:
        initial: starting value, positive and finite
        rule: `learned` makes it a parameter; the others a buffer
        dim: one step size per latent dimension, shape (D,); None for one scalar, shape ()

    Raises:
        ValueError: the value is not positive and finite
    """

    log_value: Tensor
    log_settled: Tensor

    def __init__(self, initial: float, rule: StepSizeRule = "fixed", dim: int | None = None) -> None:
        super().__init__()
        if not (initial > 0 and math.isfinite(initial)):
            raise ValueError(f"step_size={initial}: must be a positive finite number")
        self.rule = rule
        value = torch.full(() if dim is None else (dim,), math.log(initial))
        if rule == "learned":
            self.log_value = nn.Parameter(value)
        else:
            self.register_buffer("log_value", value)
        if rule == "dual_averaging":
            self.register_buffer("log_settled", value.clone())

    def forward(self) -> Tensor:
        """The step size, () or (D,). Outside training a dual average takes the place of its last iterate."""
        if self.rule == "dual_averaging" and not self.training:
            return self.log_settled.exp()
        return self.log_value.exp()
