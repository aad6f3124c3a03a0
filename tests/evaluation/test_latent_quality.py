"""Active units, linear probe and distance to the prior, where their values are known."""

import torch
from torch import Tensor

from metvae_cli.evaluation.frozen import FrozenModel
from metvae_cli.evaluation.latent_quality import Encoded, active_units, distance_to_prior, encode, linear_probe
from tests.evaluation.linear_gaussian_data import data, frozen
from tests.objectives.linear_gaussian import LinearGaussian


def model() -> FrozenModel:
    return frozen(LinearGaussian())


def normal(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_units_whose_mean_does_not_move_are_not_active() -> None:
    means = normal(500, 3) * torch.tensor([1.0, 0.09, 0.2])
    assert active_units(Encoded(means, means)).tolist() == [True, False, True]


def test_encodings_are_those_of_the_encoder(double: None) -> None:
    x = data(700)
    encoded = encode(model(), x, seed=0)
    posterior = LinearGaussian().posterior(x)
    assert torch.allclose(encoded.mean, posterior.mean)
    assert torch.allclose((encoded.draw - encoded.mean).std(0), posterior.stddev[0], rtol=0.1)
    assert torch.equal(encode(model(), x, seed=0).draw, encoded.draw)


def test_the_probe_reads_what_is_linear_and_nothing_else() -> None:
    z, labels = normal(2000, 4), (normal(2000, 1, 9)[:, 0] > 0).long()
    chance = linear_probe(z[:1000], labels[:1000], z[1000:], labels[1000:])
    assert abs(chance.accuracy - chance.majority) < 5 * chance.accuracy_se
    moved = z + 3 * labels[:, None]
    found = linear_probe(moved[:1000], labels[:1000], moved[1000:], labels[1000:])
    assert found.accuracy > 0.97


def test_the_prior_is_at_no_distance_from_itself_and_others_are(double: None) -> None:
    z = normal(2000, 2)
    same = distance_to_prior(model(), Encoded(z, z), seed=0)
    assert abs(same.energy) < 0.01
    assert abs(same.mmd) < 0.01
    narrow = distance_to_prior(model(), Encoded(z, 0.5 * z), seed=0)
    assert narrow.energy > 10 * abs(same.energy_of_prior)
    assert narrow.mmd > 10 * abs(same.mmd_of_prior)
