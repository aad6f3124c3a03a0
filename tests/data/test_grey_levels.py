"""Grey levels as floats and as drawn pixels: exact values, and a law that is exact and not nearly so."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metvae_cli.data import grey_levels
from metvae_cli.data.base import Dataset, Split
from metvae_cli.data.grey_levels import as_float, dequantized, drawn_pixels, random_levels

ALL_LEVELS = torch.arange(256, dtype=torch.uint8)


def test_as_float_maps_grey_levels_to_the_unit_interval() -> None:
    levels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    x = as_float(levels)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.tensor([0.0, 0.2, 1.0]))
    assert levels.tolist() == [0, 51, 255], "the stored levels were changed"


def test_as_float_leaves_floats_unchanged() -> None:
    x = torch.tensor([-3.0, 300.0])
    assert torch.equal(as_float(x), x)


def test_dequantized_levels_are_what_their_noise_makes_of_them() -> None:
    torch.manual_seed(3)
    found = dequantized(ALL_LEVELS)
    torch.manual_seed(3)
    exact = (ALL_LEVELS.double() + torch.rand(256).double()) / 256
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2**-24)


def test_bytes_of_255_are_drawn_anew_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.arange(2048).remainder(256).to(torch.uint8)
    monkeypatch.setattr(Tensor, "random_", lambda words, *limits: words.copy_(table.view(torch.int64)))
    torch.manual_seed(0)
    levels = random_levels(torch.empty(1, 2045, dtype=torch.uint8))[0]
    torch.manual_seed(0)
    again = torch.randint(0, 255, (8,), dtype=torch.uint8)
    expected = torch.where(table == 255, again.repeat_interleave(256), table)
    assert torch.equal(levels, expected[:2045])


def distance_from_uniform(levels: Tensor) -> float:
    """Chi-square of the counts of 0..254 in standard deviations from its mean; infinite where any is 255."""
    counts = levels.flatten().bincount(minlength=256).double()
    if counts[255]:
        return math.inf
    expected = counts.sum() / 255
    chi_square = ((counts[:255] - expected).square() / expected).sum().item()
    return (chi_square - 254) / math.sqrt(2 * 254)


def nearly(like: Tensor) -> Tensor:
    """Bytes of which those that are 255 became 254: what a careless program would do."""
    return torch.randint(0, 256, like.shape, dtype=torch.uint8).clamp(max=254)


@pytest.mark.parametrize(("draw", "is_uniform"), [(random_levels, True), (nearly, False)])
def test_levels_are_uniform(draw: Callable[[Tensor], Tensor], is_uniform: bool) -> None:
    torch.manual_seed(1)
    levels = draw(torch.empty(2_000_000, dtype=torch.uint8))
    assert (abs(distance_from_uniform(levels)) < 5) == is_uniform


def test_draws_next_to_each_other_are_independent() -> None:
    """Of one word, and of two: all pairs of sixteenths are equally frequent."""
    torch.manual_seed(2)
    levels = random_levels(torch.empty(2_000_001, dtype=torch.uint8))[:2_000_000].long() // 16
    for apart in (1, 3, 8):
        pairs = (16 * levels[:-apart] + levels[apart:]).bincount(minlength=256).double()
        # The last sixteenth has 15 levels.
        share = torch.tensor([16.0] * 15 + [15.0], dtype=torch.float64) / 255
        expected = len(levels[:-apart]) * torch.outer(share, share).flatten()
        chi_square = ((pairs - expected).square() / expected).sum().item()
        assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255), apart


@pytest.mark.parametrize(("bytes_drawn", "is_exact"), [(255, True), (256, False)])
def test_pixels_are_one_with_probability_grey(
    bytes_drawn: int, is_exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all 255 levels that may be drawn, grey level k is one k times; were 255 drawn too, white would not be."""
    every = ALL_LEVELS[:bytes_drawn]
    monkeypatch.setattr(grey_levels, "random_levels", lambda like: every.repeat(256, 1).T.contiguous())
    drawn = drawn_pixels(ALL_LEVELS.expand(bytes_drawn, 256))
    assert drawn.dtype == torch.float32
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(drawn.double().mean(0), ALL_LEVELS.double() / 255, rtol=0, atol=1e-12) == is_exact


def test_black_and_white_are_certain_and_the_rest_is_as_often_as_it_should_be() -> None:
    torch.manual_seed(4)
    count = 20_000
    frequency = drawn_pixels(ALL_LEVELS.expand(count, 256)).mean(0)
    assert (frequency[0].item(), frequency[255].item()) == (0.0, 1.0)
    probability = ALL_LEVELS / 255
    deviations = (frequency - probability)[1:-1] / (probability * (1 - probability) / count).sqrt()[1:-1]
    assert deviations.abs().max() < 5
    assert 0.8 < deviations.square().mean() < 1.25


def test_floats_are_probabilities() -> None:
    torch.manual_seed(5)
    frequency = drawn_pixels(torch.tensor([0.0, 0.3, 1.0]).expand(20_000, 3)).mean(0)
    assert frequency[[0, 2]].tolist() == [0.0, 1.0]
    assert frequency[1].item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 20_000))


@pytest.mark.parametrize("shape", [(0, 1, 3), (1,), (5, 3), (100, 1, 28, 28)])
def test_a_batch_is_a_function_of_the_random_stream_alone(shape: tuple[int, ...]) -> None:
    data = Split(torch.randint(0, 256, (200, *shape[1:]), dtype=torch.uint8))
    dataset = Dataset("grey", data, data, data, support="binary", redraw=True)
    index = torch.arange(shape[0])
    torch.manual_seed(6)
    first, state = dataset.batch(index), torch.get_rng_state()
    second = dataset.batch(index)
    torch.set_rng_state(state)
    assert first.shape == (len(index), *shape[1:])
    assert torch.equal(second, dataset.batch(index))
    assert not torch.equal(first, second) or first.numel() < 16
