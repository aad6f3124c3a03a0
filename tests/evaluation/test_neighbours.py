"""Nearest training data against brute force."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metvae_cli.evaluation.neighbours import nearest

SHAPE = (1, 3, 4)


def reader(data: Tensor, asked: list[int] | None = None) -> Callable[[Tensor], Tensor]:
    def read(places: Tensor) -> Tensor:
        if asked is not None:
            asked.append(len(places))
        return data[places]

    return read


def brute_force(images: Tensor, data: Tensor, among: Tensor, neighbours: int) -> tuple[list[list[int]], Tensor]:
    """One pair at a time; of equally near data the earlier one."""
    found, distances = [], []
    for image in images:
        pairs = sorted((float((image - data[place]).square().sum().sqrt()), int(place)) for place in among)
        found.append([place for _, place in pairs[:neighbours]])
        distances.append([distance for distance, _ in pairs[:neighbours]])
    return found, torch.tensor(distances)


@pytest.mark.parametrize("chunk", [1, 7, 50, 1000, None])
def test_they_are_those_of_brute_force_whatever_the_chunks(chunk: int | None) -> None:
    torch.manual_seed(0)
    images, data = torch.rand(5, *SHAPE), torch.rand(50, *SHAPE)
    found = nearest(images, reader(data), torch.arange(50), 4, chunk)
    expected, distances = brute_force(images, data, torch.arange(50), 4)
    assert found.indices.tolist() == expected
    assert torch.allclose(found.distances, distances)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100])
def test_of_ties_the_earlier_ones_count(chunk: int) -> None:
    data = torch.bernoulli(torch.full((3, *SHAPE), 0.5)).repeat(10, 1, 1, 1)
    found = nearest(data[:2], reader(data), torch.arange(30), 4, chunk)
    for one in range(2):
        same = (data.flatten(1) == data[one].flatten()).all(1).nonzero()[:, 0]
        assert found.indices[one].tolist() == same[:4].tolist()
    assert (found.distances == 0).all()


def test_only_the_given_places_are_read_and_few_at_a_time() -> None:
    data, asked = torch.rand(100, *SHAPE), []
    among = torch.arange(1, 100, 2)
    found = nearest(torch.rand(3, *SHAPE), reader(data, asked), among, 5, 8)
    assert sum(asked) == len(among)
    assert max(asked) <= 8
    assert (found.indices % 2 == 1).all()


def test_there_are_no_more_neighbours_than_data() -> None:
    found = nearest(torch.rand(2, *SHAPE), reader(torch.rand(3, *SHAPE)), torch.arange(3), 9)
    assert found.indices.shape == found.distances.shape == (2, 3)
    assert (found.distances.diff(dim=1) >= 0).all()
