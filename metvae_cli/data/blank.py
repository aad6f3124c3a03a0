"""Rows that carry nothing: what stands for data where a density is approximated and there are none."""

import torch

from metvae_cli.data.base import Dataset, Split


def blank_dataset(num_train: int, num_held_out: int) -> Dataset:
    """Zeros of event shape (1,): an epoch of `num_train` repetitions; each held-out split has `num_held_out`."""
    held_out = Split(torch.zeros(num_held_out, 1))
    return Dataset("blank rows", Split(torch.zeros(num_train, 1)), held_out, held_out, support="real")
