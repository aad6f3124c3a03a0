"""Log-weights of the sampler's own paths: importance sampling with the chain as its proposal.

    log w = log p(x, z_K) - log q(z_0 | x) + sum_k increment_k,        E[w] = p(x)

The expectation is over z_0 and all that the chain draws and decides, so log (1/S) sum_s w_s bounds log p(x) from below
just as with an encoder alone; the increments are those of the objective (`objectives/weights.py`; Thin et al. 2021,
section 3). With Metropolis decisions and a reverse distribution that is not exact E[w] < p(x), and more draws do not
mend it (`objectives/soundness.weights_are_unbiased`). A model whose encoder's draw is carried on by a chain, of plain
flows or of Markov steps, was never trained to be covered by that encoder: what covers its posterior is the end of the
chain.
"""

import copy
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from metvae_cli.evaluation.frozen import FrozenModel
from metvae_cli.evaluation.streams import Name, stream, stream_seed
from metvae_cli.objectives.base import Objective
from metvae_cli.objectives.weights import Bookkeeping, WeightObjective
from metvae_cli.samplers.chain import Sampler

# Paths of a datum at a time. Fixed: what a path draws must not depend on how many are run together.
_TOGETHER = 250


def bookkeeping_of(sampler: Sampler, objective: Objective) -> Bookkeeping:
    """How the objective accounts for the chain.

    Raises:
        ValueError: there is no chain, or the objective gives its paths no weights
    """
    if not isinstance(objective, WeightObjective) or objective.bookkeeping == "none" or not sampler.num_steps:
        raise ValueError("proposal=chain: this run has no chain whose paths are weighed; set importance.proposal=auto")
    return objective.bookkeeping


def chain_weights(model: FrozenModel, sampler: Sampler, objective: Objective) -> "PathWeights":
    """Weights of the chain as trained. Raises ValueError as `bookkeeping_of` does."""
    frozen = copy.deepcopy(sampler).to(device=model.device, dtype=model.dtype).eval().requires_grad_(False)
    return PathWeights(model, frozen, bookkeeping_of(sampler, objective))


def flow_weights(model: FrozenModel, sampler: Sampler, objective: Objective) -> "PathWeights | None":
    """Weights of the chain if its steps are plain flows, which draw and decide nothing; else None.

    The posterior that was trained is then the end of the chain, at no more evaluations of the decoder than the start.
    """
    plain = all(kernel.proposal.is_deterministic and not kernel.is_adjusted for kernel in sampler.steps)
    return chain_weights(model, sampler, objective) if sampler.num_steps and plain else None


class PathWeights:
    """Log-weights of paths of data, given to `importance_sampling` in place of the encoder's.

    Args:
        model: frozen
        sampler: on the model's device and in its precision
        bookkeeping: `reversal` or `path`
    """

    def __init__(self, model: FrozenModel, sampler: Sampler, bookkeeping: Bookkeeping) -> None:
        self._model, self._sampler = model, sampler
        self._bookkeeping: Bookkeeping = bookkeeping

    def __call__(self, x: Tensor, names: Sequence[Name], count: int) -> Tensor:
        """(count, B) for data x (B, *event) on the CPU, with a random stream for each."""
        each = [self._of_datum(datum, name, count) for datum, name in zip(x.split(1), names, strict=True)]
        return torch.cat(each, 1)

    def _of_datum(self, x: Tensor, name: Name, count: int) -> Tensor:
        x, found = x.to(self._model.device), []
        with ExitStack() as stack:
            if self._model.device.type == "cuda":
                stack.enter_context(torch.random.fork_rng(devices=[self._model.device]))
                torch.cuda.manual_seed_all(stream_seed(*name))
            stack.enter_context(stream(*name, dtype=self._model.dtype))
            for start in range(0, count, _TOGETHER):
                objective = WeightObjective(self._bookkeeping, "log_mean_exp", min(_TOGETHER, count - start))
                found.append(objective(self._model.placed, self._sampler, x).log_weights.cpu())
        return torch.cat(found)
