"""What the latent space is worth: units in use, classes that a linear rule can read off, distance from the prior."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from metvae_cli.evaluation.distances import energy_distance, mmd
from metvae_cli.evaluation.estimate import standard_error
from metvae_cli.evaluation.frozen import FrozenModel
from metvae_cli.evaluation.streams import stream

_ACTIVE_VARIANCE = 0.01


class Encoded(NamedTuple):
    """mean: (N, D) of q(z | x); of a flow posterior where its Gaussian's mean goes. draw: (N, D), one draw of each."""

    mean: Tensor
    draw: Tensor


@torch.no_grad()
def encode(model: FrozenModel, x: Tensor, seed: int) -> Encoded:
    """Encodings of data (N, *event)."""
    means, draws = [], []
    with stream("encode", seed, dtype=model.dtype):
        for part in x.to(model.dtype).split(500):
            posterior = model.host.posterior(part)
            means.append(posterior.mean)
            draws.append(posterior.rsample((1,))[0])
    return Encoded(torch.cat(means), torch.cat(draws))


def active_units(encoded: Encoded) -> Tensor:
    """Which coordinates carry something of the data: Var_x E_q[z] > 0.01 (Burda et al. 2016), (D,) bool."""
    return encoded.mean.var(0) > _ACTIVE_VARIANCE


class Probe(NamedTuple):
    """accuracy: share of held-out data whose class a linear rule on the encoder means gets right, with standard error.

    majority: share that the most frequent class would get right
    """

    accuracy: float
    accuracy_se: float
    majority: float


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> Probe:
    """Multinomial logistic regression on means (N, D), fitted on the first two, judged on the last two."""
    rule = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # classes that can be separated exactly
        rule.fit(train.numpy(), train_labels.numpy())
    right = torch.from_numpy(np.asarray(rule.predict(test.numpy())) == test_labels.numpy()).double()
    majority = train_labels.mode().values
    return Probe(right.mean().item(), standard_error(right), (test_labels == majority).double().mean().item())


class PriorDistance(NamedTuple):
    """Between draws of the aggregate posterior, the mean over data of q(z | x), and of the prior.

    Each beside the same number for two sets of draws of the prior, which is what no distance looks like.
    """

    energy: float
    energy_of_prior: float
    mmd: float
    mmd_of_prior: float


@torch.no_grad()
def distance_to_prior(model: FrozenModel, encoded: Encoded, seed: int) -> PriorDistance:
    """Energy distance and squared MMD between one draw per datum and as many draws of the prior."""
    count = len(encoded.draw)
    with stream("prior", seed, dtype=model.dtype):
        drawn = model.host.prior.sample(2 * count, torch.device("cpu")).to(model.dtype)
    prior, other = drawn[:count], drawn[count:]
    return PriorDistance(
        energy_distance(encoded.draw, prior),
        energy_distance(other, prior),
        mmd(encoded.draw, prior),
        mmd(other, prior),
    )
