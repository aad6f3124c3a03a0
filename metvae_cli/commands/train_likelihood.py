"""The likelihood of the test data at the end of training: one number for every method."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from metvae_cli.build import Experiment
from metvae_cli.data.base import Split
from metvae_cli.evaluation.estimate import bits_per_dimension
from metvae_cli.evaluation.frozen import batches, freeze
from metvae_cli.evaluation.importance import ImportanceEstimate, importance_sampling
from metvae_cli.evaluation.path_weights import flow_weights
from metvae_cli.training.exchange import Exchange

_TEST_SEED = 7_654_321
_ROUND = 20  # test data of each of several processes between two looks at whether to stop


def log_likelihood_of_test_data(experiment: Experiment, exchange: Exchange) -> ImportanceEstimate:
    """Importance-sampled log-likelihood of the test data: what `metvae evaluate` gives for as many samples."""
    learner, settings, processes = experiment.learner, experiment.settings, experiment.processes
    test, model = learner.dataset.test, freeze(learner.model, experiment.device)
    index = test_index(test, settings.test_data)
    weigh = flow_weights(model, learner.sampler, learner.objective)

    def estimate(data: Tensor, between: Callable[[int], None]) -> ImportanceEstimate:
        chosen = batches(learner.dataset, test, data)
        return importance_sampling(model, chosen, settings.test_samples, weigh=weigh, between=between)

    if processes.size == 1:
        return estimate(index, lambda done: exchange.check())
    # The random numbers of a datum are its own: it does not matter which process has it.
    placed = torch.zeros(len(ImportanceEstimate._fields), len(index), dtype=torch.float64)
    for rows in torch.arange(len(index)).split(_ROUND * processes.size):
        exchange.agree()
        own = rows[processes.rank :: processes.size]
        if len(own):
            placed[:, own] = torch.stack([values.double() for values in estimate(index[own], lambda done: None)])
    return ImportanceEstimate(*processes.sum([placed])[0])


def test_index(test: Split, limit: int | None) -> Tensor:
    """Numbers of at most so many test data, always the same ones."""
    if limit is None or limit >= len(test):
        return torch.arange(len(test))
    return torch.randperm(len(test), generator=torch.Generator().manual_seed(_TEST_SEED))[:limit]


def per_value(experiment: Experiment, test: ImportanceEstimate) -> dict[str, float]:
    """The test number per value of a datum, for discrete values and for dequantized grey levels."""
    dataset = experiment.learner.dataset
    if not (dataset.dequantize or experiment.learner.model.likelihood.is_discrete):
        return {}
    size = math.prod(dataset.event_shape)
    return {"test/bits_per_dimension": bits_per_dimension(test.mean, size, dequantized=dataset.dequantize)}


def of_true_process(experiment: Experiment) -> dict[str, float]:
    """The test log-likelihood under the process that made the data, where it is known."""
    dataset = experiment.learner.dataset
    if dataset.exact_log_likelihood is None:
        return {}
    index = test_index(dataset.test, experiment.settings.test_data)
    return {
        "test/nll_of_true_process": -dataset.exact_log_likelihood(dataset.held_out(dataset.test, index)).mean().item()
    }
