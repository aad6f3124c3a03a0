"""The three splits of one pile, by a seeded permutation, or of a process that draws as many data as one likes."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from metvae_cli.data.base import Split
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


def drawn_splits(
    draw: Callable[[int, Generator], Tensor], generator: Generator, num_train: int, num_valid: int, num_test: int
) -> tuple[Split, Split, Split]:
    """Training, validation and test data of a process that draws (count, *event) with a generator."""
    # Test and validation come first: they stay the same data when only num_train changes.
    test = Split(draw(num_test, generator))
    valid = Split(draw(num_valid, generator))
    return Split(draw(num_train, generator)), valid, test
