"""Several runs of one configuration as one program: stacked parameters and buffers, and `torch.vmap` over the runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metvae_cli.bijections import Bijection
from metvae_cli.data.base import Split
from metvae_cli.kernels.adaptation import Outcome
from metvae_cli.models.base import TrainedModel
from metvae_cli.training.course import Batch
from metvae_cli.training.device import fork_rng
from metvae_cli.training.metrics import Metrics, RunningMean, batch_metrics, score_function_gradients, weighted_loss
from metvae_cli.training.optimizer import leave_out
from metvae_cli.training.settings import Weights
from metvae_cli.training.side_by_side import SideBySide
from metvae_cli.training.state import Learner
from metvae_cli.training.streams import Stream
from metvae_cli.training.trainer import VALIDATION_SEED

T = TypeVar("T")


class HeldOut(NamedTuple):
    """means: of the metrics over held-out data. log_weights: of the first batch, (S, B)."""

    means: dict[str, float]
    log_weights: Tensor


class Stack:
    """Learners of one configuration with different seeds.

    Their parameters and buffers become views of stacked ones, so that what one run changes of its own is changed in the
    stack; `release` makes them ordinary again.

    Args:
        learners: of the runs
        streams: from which each run draws
    """

    def __init__(self, learners: Sequence[Learner[TrainedModel]], streams: Sequence[Stream]) -> None:
        self.learners, self.streams = learners, streams
        self._wholes = [_Whole(learner) for learner in learners]
        for module in self._wholes[0].modules():
            if isinstance(module, Bijection):
                module.by_rows = False
        self._parameters = {
            name: nn.Parameter(part) for name, part in _stacked(self._wholes, nn.Module.named_parameters)
        }
        self._buffers = dict(_stacked(self._wholes, nn.Module.named_buffers))
        self._own = [list(whole.parameters()) for whole in self._wholes]

    def release(self) -> None:
        """Give each run parameters and buffers of its own."""
        for whole in self._wholes:
            for tensor in (*whole.parameters(), *whole.buffers()):
                tensor.data = tensor.data.clone()

    def gradients(self, index: Sequence[Tensor], weights: Weights) -> list[Batch]:
        """What the training batch of each run says, at its own index (B,); its gradients are in its parameters."""
        batches = []
        for learner, stream, own in zip(self.learners, self.streams, index, strict=True):
            with stream.current():
                batches.append(learner.dataset.batch(own.to(learner.dataset.train.values.device)))
        self._wholes[0].train()
        said, names, evaluations = self._compute(torch.stack(batches), 1 / weights.kl, self.streams)
        score_loss, stacked = said.get("score_loss"), list(self._parameters.values())
        score_part = None
        if weights.logs and score_loss is not None:
            score_part = _apart(score_function_gradients(score_loss.sum(), stacked), len(self._wholes))
        for parameter in stacked:
            parameter.grad = None
        (weights.kl * weighted_loss(said["loss"], score_loss, weights.score)).sum().backward()
        self._hand_out([parameter.grad for parameter in stacked], weights)
        parts = _each(said)
        return [
            Batch(
                len(own),
                part["loss"],
                Metrics(names, part["metrics"]),
                Outcome(*(part.get(name) for name in Outcome._fields)),  # pyright: ignore[reportArgumentType]
                evaluations,
                None if score_part is None else score_part[run],
            )
            for run, (own, part) in enumerate(zip(index, parts, strict=True))
        ]

    @torch.no_grad()
    def held_out(self, split: Split, check: Callable[[], None]) -> list[HeldOut]:
        """Means over a split, with the noise that each run alone would have: the same for all. check: may raise."""
        learner = self.learners[0]
        self._wholes[0].eval()
        running = [RunningMean() for _ in self._wholes]
        first: list[Tensor] = []
        with fork_rng(VALIDATION_SEED):
            for index in torch.arange(len(split)).split(learner.batch_size):
                said, names, _ = self._compute(learner.dataset.held_out(split, index), 1.0, None)
                first = first or list(said["log_weights"].unbind(0))
                for own, part in zip(running, _each(said), strict=True):
                    own.add(Metrics(names, part["metrics"]), len(index))
                check()
        return [HeldOut(own.means(), weights) for own, weights in zip(running, first, strict=True)]

    def _compute(
        self, x: Tensor, likelihood_weight: float, streams: Sequence[Stream] | None
    ) -> tuple[dict[str, Tensor], tuple[str, ...], int]:
        """What the objective says, of each run (R, ...), the names of its metrics, and the evaluations of each.

        x: (R, B, *event), or (B, *event), the same for all, if `streams` is None: they draw the same numbers then
        """
        whole, in_all = self._wholes[0], []

        def say(x: Tensor) -> dict[str, Tensor]:
            said, *same = whole.say(x, likelihood_weight)
            in_all.append(same)
            return said

        mapped = torch.vmap(partial(self._inside, streams, say), in_dims=(0, None if streams is None else 0))
        return mapped({**self._parameters, **self._buffers}, x), *in_all[0]

    def _inside(
        self,
        streams: Sequence[Stream] | None,
        function: Callable[..., T],
        state: Mapping[str, Tensor],
        *given: Tensor,
    ) -> T:
        """What a function returns under `torch.vmap`, where the first run has a state that stands for those of all."""
        with SideBySide(next(iter(state.values())), streams, partial(self._again, streams)):
            # Without `tie_weights`, which does not put back the parameters of a module that several modules share.
            return functional_call(self._wholes[0], dict(state), (function, *given), tie_weights=False)

    def _again(self, streams: Sequence[Stream] | None, function: Callable[[], Tensor]) -> Tensor:
        """What a function, made inside of an earlier `torch.vmap`, returns inside of another; of each run.

        Torch knows tensors that are mapped over by the depth of the map: those that it has from there belong here.
        """
        return torch.vmap(partial(self._inside, streams, function))({**self._parameters, **self._buffers})

    def _hand_out(self, gradients: Sequence[Tensor | None], weights: Weights) -> None:
        for learner, own, parts in zip(self.learners, self._own, _apart(gradients, len(self._own)), strict=True):
            for parameter, part in zip(own, parts, strict=True):
                parameter.grad = part
            if not weights.trains_model:
                leave_out(learner.model)


class _Whole(nn.Module):
    """All of a learner that has parameters or buffers, as one module."""

    def __init__(self, learner: Learner[TrainedModel]) -> None:
        super().__init__()
        self.model, self.sampler = learner.model, learner.sampler
        self.adaptations = nn.ModuleList(learner.adaptations)
        self._objective = learner.objective

    def forward(self, function: Callable[..., T], *given: Tensor) -> T:
        """What a function returns, which may ask this module: the way to call it with other parameters."""
        return function(*given)

    def say(self, x: Tensor, likelihood_weight: float) -> tuple[dict[str, Tensor], tuple[str, ...], int]:
        """What a batch (B, *event) says, as tensors alone, the names of its metrics, and the number of evaluations."""
        output = self._objective(self.model, self.sampler, x, likelihood_weight)
        there = {"loss": output.loss, "log_weights": output.log_weights, "score_loss": output.score_loss}
        said = {**there, **output.outcome._asdict()}
        metrics = batch_metrics(output, self.model, likelihood_weight)
        found = {name: value for name, value in said.items() if value is not None}
        return {**found, "metrics": metrics.values}, metrics.names, output.evaluations


def _stacked(
    modules: Sequence[nn.Module], named: Callable[[nn.Module], Iterator[tuple[str, Tensor]]]
) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the modules, stacked; theirs become views of it. Masks, which are the same in all, stay alone."""
    for found in zip(*(named(module) for module in modules), strict=True):
        tensors = [tensor for _, tensor in found]
        if not tensors[0].is_floating_point() and all(torch.equal(tensors[0], tensor) for tensor in tensors[1:]):
            continue
        whole = torch.stack([tensor.detach() for tensor in tensors])
        for tensor, view in zip(tensors, whole.unbind(0), strict=True):
            tensor.data = view
        yield found[0][0], whole


def _apart(stacked: Sequence[Tensor | None], count: int) -> list[list[Tensor | None]]:
    """Of each run, its part of each stacked tensor."""
    columns = [[None] * count if tensor is None else list(tensor.unbind(0)) for tensor in stacked]
    return [list(row) for row in zip(*columns, strict=True)]


def _each(said: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """What each run says."""
    columns = {name: value.detach().unbind(0) for name, value in said.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
