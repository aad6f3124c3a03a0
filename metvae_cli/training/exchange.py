"""What processes that train together exchange: once per iteration, in one sum, all that the loop decides by.

    gradients, metrics, loss, what adaptations are told     means over the whole batch
    a signal to stop, seconds                               so that all stop after the same iteration

Alone there is nothing to exchange, and nothing of this is computed.
"""

import signal
import time
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metvae_cli.errors import Interrupted, RunError
from metvae_cli.kernels.adaptation import Outcome
from metvae_cli.objectives.base import ObjectiveOutput
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.metrics import Metrics
from metvae_cli.training.processes import Processes, Share, put_together, share_out


class Exchange:
    """Sums over processes, and the clock and the signals that they agree on.

    Args:
        processes: those that train together
        interruption: of this process
    """

    def __init__(self, processes: Processes, interruption: Interruption) -> None:
        self.processes = processes
        self.interruption = interruption
        self._started = time.monotonic()
        self._agreed_seconds = 0.0
        self._asked_to_stop = False

    def start(self, seconds: float) -> None:
        """Begin to count, from the seconds that earlier parts of a run took."""
        self._started, self._agreed_seconds = time.monotonic() - seconds, seconds

    def seconds(self) -> float:
        """Wall time of training; of several processes their mean when they last exchanged something."""
        return self._agreed_seconds if self.processes.size > 1 else time.monotonic() - self._started

    def check(self) -> None:
        """Raise Interrupted if a signal came, to any of the processes: in all of them after the same exchange."""
        if self.processes.size == 1:
            self.interruption.check()
        elif self._asked_to_stop:
            raise Interrupted(self.interruption.asked() or signal.SIGTERM)

    def agree(self) -> None:
        """Raise Interrupted if a signal came, to any of the processes; all of them ask at the same time."""
        if self.processes.size > 1:
            (asked,) = self.processes.sum([torch.tensor([float(self.interruption.asked() is not None)])])
            self._asked_to_stop = self._asked_to_stop or asked.item() > 0
        self.check()

    def batch(
        self, output: ObjectiveOutput, parameters: Sequence[nn.Parameter], metrics: Metrics, share: Share
    ) -> tuple[Tensor, int, Metrics, Outcome]:
        """Loss, decoder evaluations, metrics and outcome of a training batch. Its gradients replace those of the share.

        output, metrics: of the share
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        weighted = [share.weight * gradient for gradient in gradients]
        told = share_out(output.outcome, share)
        own = torch.cat([output.loss.detach().view(1), metrics.values.to(output.loss)])
        done, *summed = self._sum([torch.tensor([float(output.evaluations)]), *weighted, *told], own, share)
        for gradient, mean in zip(gradients, summed, strict=False):
            gradient.copy_(mean)
        outcome = put_together(summed[len(gradients) : len(gradients) + len(told)], output.outcome)
        loss, values = summed[-1][0], summed[-1][1:]
        evaluations = int(done.item()) // (self.processes.size if share.is_whole else 1)
        return loss, evaluations, metrics._replace(values=values), outcome

    def held_out(self, metrics: Metrics, log_weights: Tensor, share: Share) -> tuple[Metrics, Tensor]:
        """Metrics and log-weights (S, B) of a held-out batch, from those of a share."""
        weights, values = self._sum([share.placed(log_weights, 1)], metrics.values, share)
        return metrics._replace(values=values), weights

    def mean_of_parts(self, parts: Sequence[Tensor | None], share: Share) -> list[Tensor | None]:
        """Means over a batch of what is there of a share's; nothing is exchanged where nothing is."""
        there = [share.weight * part for part in parts if part is not None]
        summed = iter(self.processes.sum(there) if there else [])
        return [None if part is None else next(summed) for part in parts]

    def check_equal(self, parameters: Sequence[Tensor]) -> None:
        """Raise RunError where processes that must hold the same numbers do not."""
        if self.processes.size == 1:
            return
        total = sum(parameter.detach().double().sum().item() for parameter in parameters)
        streams = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]
        own = (total, *(zlib.crc32(stream.numpy().tobytes()) for stream in streams))
        if self.processes.tell(own) != own:
            raise RunError(
                "the processes no longer hold the same model or random stream: does a class in plugins=[...] draw "
                "random numbers in another way than torch's, or differently in each process?"
            )

    def _sum(self, tensors: Sequence[Tensor], means: Tensor, share: Share) -> list[Tensor]:
        """Sums of tensors, and last the means (N,) over the batch of some numbers, beside what all agree on."""
        stop = float(self.interruption.asked() is not None)
        seconds = (time.monotonic() - self._started) / self.processes.size
        flags = torch.tensor([stop, seconds], dtype=means.dtype, device=means.device)
        *summed, numbers, flags = self.processes.sum([*tensors, share.weight * means, flags])
        asked, self._agreed_seconds = flags.tolist()
        self._asked_to_stop = self._asked_to_stop or asked > 0
        return [*summed, numbers]
