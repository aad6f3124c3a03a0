"""Retraining an encoder on a frozen decoder."""

import torch
from torch import nn

from metvae_cli.data.base import Dataset, Split
from metvae_cli.evaluation.exact import exact_likelihood
from metvae_cli.evaluation.frozen import freeze
from metvae_cli.evaluation.importance import ProposalWeights, importance_sampling
from metvae_cli.evaluation.proposals import retrain_encoder
from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.encoders import MLPEncoder
from metvae_cli.models.likelihoods import GaussianLikelihood
from metvae_cli.models.priors import StandardNormal
from metvae_cli.models.vae import VAE
from tests.evaluation.linear_gaussian_data import numbered


def model() -> VAE:
    torch.manual_seed(0)
    return VAE(StandardNormal(2), MLPEncoder((4,), 2, (16,)), MLPDecoder(2, (4,), ()), GaussianLikelihood(0.3))


def dataset(vae: VAE) -> Dataset:
    torch.manual_seed(1)
    with torch.no_grad():
        x = vae.decode(torch.randn(1, 600, 2)).sample()[0]
    return Dataset("made", Split(x[:400]), Split(x[400:500]), Split(x[500:]), support="real")


def test_an_encoder_that_is_no_proposal_becomes_one() -> None:
    vae = model()
    data = dataset(vae)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    random = torch.get_rng_state()
    seen: list[int] = []
    encoder, bounds = retrain_encoder(vae, data, epochs=40, lr=5e-3, between=seen.append)
    assert bounds[-1] > bounds[0] + 5
    assert seen == list(range(41))
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in vae.parameters())

    frozen = freeze(vae, torch.device("cpu"))
    x = data.test.values.double()
    exact = exact_likelihood(vae.double(), numbered(x))
    old = importance_sampling(frozen, numbered(x), 200)
    new = importance_sampling(frozen, numbered(x), 200, weigh=ProposalWeights(frozen, encoder.double()))
    assert old.mean < exact.per_datum.mean() - 0.3
    assert abs(new.mean - exact.per_datum.mean()) < 0.02
    assert new.effective_samples.mean() > 5 * old.effective_samples.mean()


def test_it_never_ends_worse_than_it_began() -> None:
    vae = model()
    data = dataset(vae)
    good, _ = retrain_encoder(vae, data, epochs=10, lr=5e-3)
    vae.encoder = good
    spoiled, bounds = retrain_encoder(vae, data, epochs=2, lr=10.0)
    assert max(bounds) == bounds[0]
    assert isinstance(spoiled, nn.Module)
    kept = zip(spoiled.parameters(), good.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in kept)
