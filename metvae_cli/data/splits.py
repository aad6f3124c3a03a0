"""Held-out data taken from one pile by a seeded permutation."""

import torch
from torch import Tensor

from metvae_cli.errors import ConfigError


def seeded_split(count: int, num_valid: int, num_test: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the training, validation and test data, each int64; 0 takes none for a part.

    Raises ConfigError where nothing is left for training.
    """
    held_out = num_valid + num_test
    if held_out >= count:
        asked = {"num_valid": num_valid, "num_test": num_test}
        first, *others = [f"dataset.{key}={number}" for key, number in asked.items() if number]
        beside = f"with {others[0]} " if others else ""
        raise ConfigError(
            f"{first}: {beside}nothing is left of the {count} data for training; at most {count - 1} can be held out"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    test, valid, train = order.split([num_test, num_valid, count - held_out])
    return train, valid, test
