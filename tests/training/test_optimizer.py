"""Optimizers: what a checkpoint of another memory layout becomes."""

import copy
from itertools import pairwise

import pytest
import torch

from metvae_cli.models.conv import ConvDecoder
from metvae_cli.training.optimizer import Algorithm, make_optimizer, restore_optimizer


def trained(decoder: ConvDecoder, optimizer: torch.optim.Optimizer, steps: int) -> list[torch.Tensor]:
    z = torch.linspace(-1, 1, 16).view(4, 4)
    for _ in range(steps):
        optimizer.zero_grad()
        decoder(z).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in decoder.parameters()]


@pytest.mark.parametrize("algorithm", ["adam", "adamw", "adamax"])
def test_moments_of_another_layout_are_put_into_that_of_the_parameters(algorithm: Algorithm) -> None:
    """As a checkpoint holds them that was written when convolutions had their channels first."""
    decoder = ConvDecoder(4, (1, 8, 8), channels=(8, 4))
    optimizer, _ = make_optimizer(decoder.parameters(), 1, algorithm, lr=0.01)
    trained(decoder, optimizer, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    changed = 0
    for state in saved["state"].values():
        for name, value in state.items():
            state[name] = value.clone(memory_format=torch.contiguous_format)
            changed += state[name].stride() != value.stride()
    assert changed
    other = copy.deepcopy(decoder)
    resumed, _ = make_optimizer(other.parameters(), 1, algorithm, lr=0.01)
    restore_optimizer(resumed, saved)
    for one, two in zip(trained(decoder, optimizer, 3), trained(other, resumed, 3), strict=True):
        assert torch.equal(one, two)


def test_layouts_as_saved_would_train_otherwise() -> None:
    """What the above guards against: fused Adam takes the layout of its moments for that of the parameters."""
    results = []
    for restores in (restore_optimizer, lambda optimizer, saved: optimizer.load_state_dict(saved)):
        torch.manual_seed(0)
        decoder = ConvDecoder(4, (1, 8, 8), channels=(8, 4))
        first, _ = make_optimizer(decoder.parameters(), 1, lr=0.01)
        trained(decoder, first, 3)
        saved = first.state_dict()
        for state in saved["state"].values():
            for name, value in state.items():
                state[name] = value.clone(memory_format=torch.contiguous_format)
        second, _ = make_optimizer(decoder.parameters(), 1, lr=0.01)
        restores(second, saved)
        results.append(trained(decoder, second, 3))
    assert not all(torch.equal(one, two) for pair in pairwise(results) for one, two in zip(*pair, strict=True))
