"""The optimizer and its learning-rate schedule; the keys of `configs/optimizer/*.yaml`."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, MultiStepLR

from metvae_cli.models.base import TrainedModel

Algorithm = Literal["adam", "adamw", "adamax", "sgd"]
LearningRateSchedule = Literal["constant", "cosine", "multistep"]


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    max_epochs: int,
    algorithm: Algorithm = "adam",
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    schedule: LearningRateSchedule = "constant",
    milestones: Sequence[int] = (10, 20, 30),
    gamma: float = 0.25,
) -> tuple[optim.Optimizer, LRScheduler]:
    """The optimizer and its schedule, stepped once per epoch.

    Args:
        parameters: of model and sampler
        max_epochs: length of the cosine schedule
        algorithm: adam, adamw, adamax or sgd
        lr: learning rate
        weight_decay: L2 penalty (decoupled for adamw)
        momentum: for sgd
        schedule: constant, cosine to zero over max_epochs, or multistep
        milestones, gamma: multistep multiplies lr by gamma at each of these epochs

    Raises:
        ValueError: a number is out of range
    """
    for name, value, positive in (("lr", lr, True), ("gamma", gamma, True), ("weight_decay", weight_decay, False)):
        if not math.isfinite(value) or value < 0 or (positive and value == 0):
            raise ValueError(f"{name}={value}: must be a {'positive' if positive else 'non-negative'} finite number")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum={momentum}: must lie in [0, 1)")
    if momentum > 0 and algorithm != "sgd":
        raise ValueError(f"momentum={momentum}: {algorithm} has none of its own; set optimizer=sgd or momentum=0")
    rising = [0, *milestones]
    if schedule == "multistep" and (len(rising) < 2 or any(b <= a for a, b in itertools.pairwise(rising))):
        raise ValueError(f"milestones={list(milestones)}: must be epochs from 1 on, rising, and at least one")
    optimizer = _make_algorithm(list(parameters), algorithm, lr, weight_decay, momentum)
    return optimizer, _make_schedule(optimizer, schedule, max_epochs, milestones, gamma)


@torch.no_grad()
def restore_optimizer(optimizer: optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a saved state. Moments get the memory layout of their parameters, which fused algorithms take for granted:
    a checkpoint may have been written when convolutions lay otherwise.
    """
    optimizer.load_state_dict(saved)
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], largest: float | None) -> Tensor:
    """Scale gradients whose norm together is above `largest` down to it; the norm that they had, ()."""
    norm = _total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if largest is not None and norm > largest:  # the trainer asks for the norm in any case
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm


def leave_out(model: TrainedModel) -> None:
    """Let the optimizer pass over prior, decoder and likelihood, their moments included."""
    for parameter in model.generative_parameters():
        parameter.grad = None


def _total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all of them, ()."""
    if not gradients or gradients[0].device.type != "cpu":
        return nn.utils.get_total_norm(gradients)
    flat = [gradient.flatten() for gradient in gradients]
    return torch.stack([torch.dot(part, part) for part in flat]).sum().sqrt()  # in a third of that one's time


def _make_algorithm(
    parameters: list[nn.Parameter], algorithm: Algorithm, lr: float, weight_decay: float, momentum: float
) -> optim.Optimizer:
    if algorithm == "adam":
        return optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    if algorithm == "adamw":
        return optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    if algorithm == "adamax":
        return optim.Adamax(parameters, lr=lr, weight_decay=weight_decay)
    # Not fused: that one fails where some parameters get their first gradient later than others.
    return optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, foreach=True)


def _make_schedule(
    optimizer: optim.Optimizer,
    schedule: LearningRateSchedule,
    max_epochs: int,
    milestones: Sequence[int],
    gamma: float,
) -> LRScheduler:
    if schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=max_epochs)
    if schedule == "multistep":
        return MultiStepLR(optimizer, list(milestones), gamma)
    return ConstantLR(optimizer, factor=1.0)
