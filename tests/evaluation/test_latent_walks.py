"""Walks in latent space: where they begin, end and pass, and what they leave as it is."""

import pytest
import torch

from metvae_cli.evaluation import latent_walks
from metvae_cli.models.priors import MixturePrior, StandardNormal

CPU = torch.device("cpu")


def test_a_line_has_its_ends_and_its_middle() -> None:
    start, end = torch.randn(4, 3), torch.randn(4, 3)
    positions = latent_walks.line(start, end, 5)
    assert positions.shape == (5, 4, 3)
    assert torch.equal(positions[0], start)
    assert torch.equal(positions[-1], end)
    assert torch.allclose(positions[2], (start + end) / 2, atol=1e-6)
    assert torch.allclose(positions.diff(dim=0), ((end - start) / 4).expand(4, 4, 3), atol=1e-6)


def test_partners_are_of_another_class() -> None:
    labels = torch.arange(100) % 3
    pairs = latent_walks.different_pairs(labels, torch.arange(100))
    assert torch.equal(pairs[:, 0], torch.arange(100))
    assert (labels[pairs[:, 0]] != labels[pairs[:, 1]]).all()
    assert len(pairs[:, 1].unique()) > 30


def test_partners_in_one_class_are_other_data() -> None:
    pairs = latent_walks.different_pairs(torch.zeros(3), torch.tensor([0, 1, 2]).repeat(20))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert set(map(tuple, pairs.tolist())) == {(a, b) for a in range(3) for b in range(3) if a != b}
    with pytest.raises(ValueError, match="at least 2 data"):
        latent_walks.different_pairs(torch.zeros(1), torch.tensor([0]))


def test_units_are_ordered_by_activity_among_those_that_the_decoder_sees() -> None:
    means = torch.randn(2000, 4) * torch.tensor([0.1, 2.0, 1.0, 9.0])
    units = latent_walks.most_active(means, 3)
    assert units.coordinates.tolist() == [1, 2, 0]
    assert torch.allclose(units.activity, torch.tensor([4.0, 1.0, 0.01]), rtol=0.2)
    assert len(latent_walks.most_active(torch.randn(9, 64), 64).coordinates) == 10
    assert latent_walks.most_active(torch.randn(1, 1), 1).activity.tolist() == [0.0]


def test_a_traversal_changes_one_coordinate_from_minus_3_to_3() -> None:
    centre, coordinates = torch.randn(5), torch.tensor([3, 0])
    mean, scale = torch.tensor([1.0, 0, 0, -2.0, 0]), torch.tensor([0.5, 1, 1, 2.0, 1])
    z = latent_walks.along(centre, coordinates, mean, scale, 7)
    assert z.shape == (7, 2, 5)
    for row, coordinate in enumerate([3, 0]):
        others = [other for other in range(5) if other != coordinate]
        assert torch.equal(z[:, row, others], centre[others].expand(7, -1))
        expected = mean[coordinate] + torch.arange(-3.0, 4.0) * scale[coordinate]
        assert torch.allclose(z[:, row, coordinate], expected, atol=1e-5)


def test_moments_of_priors() -> None:
    mean, scale = latent_walks.prior_moments(StandardNormal(3), 3, CPU)
    assert mean.tolist() == [0, 0, 0]
    assert scale.tolist() == [1, 1, 1]
    prior = MixturePrior(2, num_components=1)
    with torch.no_grad():
        prior.means.copy_(torch.tensor([[3.0, -1.0]]))
        prior.log_scales.copy_(torch.tensor([[0.5, 2.0]]).log())
    torch.manual_seed(0)
    mean, scale = latent_walks.prior_moments(prior, 2, CPU)
    assert torch.allclose(mean, torch.tensor([3.0, -1.0]), atol=0.2)
    assert torch.allclose(scale, torch.tensor([0.5, 2.0]), rtol=0.1)
