"""Schedules: the inverse temperatures beta_1 <= ... <= beta_K that the steps of a chain target."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from metvae_cli.densities import Beta


class Schedule(nn.Module, ABC):
    """beta_k of each step. `is_constant`: every step targets the posterior itself."""

    is_constant: bool

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps

    @abstractmethod
    def forward(self) -> Tensor:
        """The inverse temperatures, (K,)."""

    def betas(self, like: Tensor) -> Sequence[Beta]:
        """Each inverse temperature: tensors () such as `like`, or numbers where nothing is learned."""
        return self().to(like).unbind()


class Constant(Schedule):
    """beta_k = 1: each step is invariant for the posterior."""

    is_constant = True

    def forward(self) -> Tensor:
        """(K,) ones."""
        return torch.ones(self.num_steps)

    def betas(self, like: Tensor) -> Sequence[Beta]:
        """K times the number 1; of a subclass with another `forward`, what that says."""
        return [1.0] * self.num_steps if type(self).forward is Constant.forward else super().betas(like)


class Linear(Schedule):
    """beta_k = k / (K + 1): the path runs from the encoder (beta 0) to the model (beta 1, in the final weight)."""

    is_constant = False

    def forward(self) -> Tensor:
        """(K,) equally spaced inside (0, 1)."""
        return torch.tensor(self._numbers())

    def betas(self, like: Tensor) -> Sequence[Beta]:
        """The same as numbers; of a subclass with another `forward`, what that says."""
        return self._numbers() if type(self).forward is Linear.forward else super().betas(like)

    def _numbers(self) -> list[float]:
        return [k / (self.num_steps + 1) for k in range(1, self.num_steps + 1)]


class Sigmoidal(Schedule):
    """beta_k = [s(d (2t - 1)) - s(-d)] / [s(d) - s(-d)] at t = k / (K + 1), with one learned d = e^delta (2106.15921).

    delta starts at -3, which is nearly linear; larger d spends more steps at both ends.
    """

    is_constant = False

    def __init__(self, num_steps: int) -> None:
        super().__init__(num_steps)
        self.log_sharpness = nn.Parameter(torch.tensor(-3.0))

    def forward(self) -> Tensor:
        """(K,) increasing inside (0, 1)."""
        sharpness = self.log_sharpness.exp()
        times = torch.linspace(0.0, 1.0, self.num_steps + 2, device=sharpness.device)[1:-1]
        low, high = torch.sigmoid(-sharpness), torch.sigmoid(sharpness)
        return (torch.sigmoid(sharpness * (2 * times - 1)) - low) / (high - low)


class Learned(Schedule):
    """beta_k = prod_{j >= k} sigmoid(l_j), with K learned numbers l: any increasing schedule inside (0, 1).

    start: `geometric` is l = 0, beta_k = 2^-(K + 1 - k), as in the code published with 2106.15921; `linear` is
        beta_k = k / (K + 1)
    """

    is_constant = False

    def __init__(self, num_steps: int, start: Literal["geometric", "linear"] = "linear") -> None:
        super().__init__(num_steps)
        logits = torch.zeros(num_steps) if start == "geometric" else torch.arange(1, num_steps + 1).float().log()
        self.logits = nn.Parameter(logits)

    def forward(self) -> Tensor:
        """(K,) increasing inside (0, 1)."""
        return nn.functional.logsigmoid(self.logits).flip(0).cumsum(0).flip(0).exp()
