"""Several runs of one configuration that differ in their seed, trained side by side as one program.

Each is an ordinary trainer with its own state, random stream, optimizer and limits, whose course is answered for all
that stand at the same place at once. One whose step is not finite skips it alone; one that ends leaves the others; one
that is behind, since it was resumed from an earlier place, is brought up to them first.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.data.base import epoch_order
from metvae_cli.errors import Interrupted, RunError
from metvae_cli.training.course import Batch, Question
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.stack import HeldOut, Stack
from metvae_cli.training.streams import Stream
from metvae_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

_REHEARSALS = 3
_TOLERANCE = 1e-3  # of a gradient in single precision, whose terms may cancel


class Replica(NamedTuple):
    """One run. voice: inside, log lines are its own."""

    trainer: Trainer
    stream: Stream
    voice: Callable[[], AbstractContextManager[object]] = nullcontext


class Replicas:
    """Trains replicas.

    Args:
        replicas: of one configuration, each with another seed
        interruption: of all of them
    """

    def __init__(self, replicas: Sequence[Replica], interruption: Interruption) -> None:
        self.replicas = replicas
        self.interruption = interruption
        self.ends: dict[int, str | BaseException] = {}
        self._courses = [replica.trainer.course() for replica in replicas]
        self._questions: dict[int, Question] = {}
        self._stack: Stack | None = None
        self._stacked: list[int] = []
        for replica in replicas:
            replica.trainer.random_states = replica.stream.states

    def fit(self) -> list[str | BaseException]:
        """Train all until each has ended; how: the name of a limit, or what was raised, Interrupted included."""
        for run, course in enumerate(self._courses):
            self._go_on(run, lambda course=course: next(course))
        while self._questions:
            self._serve(self._hindmost())
            if any(isinstance(end, Interrupted) for end in self.ends.values()):
                self._stop_waiting()
        if self._stack is not None:
            self._stack.release()
        return [self.ends[run] for run in range(len(self.replicas))]

    def _hindmost(self) -> list[int]:
        """Those that wait for the same answer, at the earliest place at which any waits."""

        def place(run: int) -> tuple[int, bool]:
            return self.replicas[run].trainer.state.iteration, self._questions[run] is None

        first = min(place(run) for run in self._questions)
        return [run for run in sorted(self._questions) if place(run) == first]

    def _serve(self, group: list[int]) -> None:
        """Answer the question of a group."""
        stack = self._regroup(group)
        try:
            answers = self._validate(stack, group) if self._questions[group[0]] is None else self._train(stack, group)
        except Interrupted:
            self._stop_waiting()
            return
        except Exception as error:  # none of them has an answer
            for run in group:
                self._go_on(run, lambda run=run, error=error: self._courses[run].throw(error))
            return
        for run, answer in zip(group, answers, strict=True):
            self._go_on(run, lambda run=run, answer=answer: self._courses[run].send(answer))

    def _train(self, stack: Stack, group: list[int]) -> Sequence[Batch]:
        first = self.replicas[group[0]].trainer
        for run in group:
            self.replicas[run].trainer.modules.train()
        index = [question for run in group if (question := self._questions[run]) is not None]
        return stack.gradients(index, first.settings.weights(first.state.epoch, first.state.iteration))

    def _validate(self, stack: Stack, group: list[int]) -> Sequence[dict[str, float]]:
        found = stack.held_out(self.replicas[group[0]].trainer.learner.dataset.valid, self.interruption.check)
        for run, (_, log_weights) in zip(group, found, strict=True):
            trainer = self.replicas[run].trainer
            trainer.modules.eval()
            trainer.tracker.log_weights(trainer.state.iteration, log_weights)
        self._tell(group, found)
        return [means for means, _ in found]

    def _tell(self, group: Sequence[int], found: Sequence[HeldOut]) -> None:
        """One line for all."""
        trainer = self.replicas[group[0]].trainer
        epoch = trainer.state.epoch + trainer.state.batch / trainer.num_batches
        bounds = torch.tensor([means["bound"] for means, _ in found])  # `statistics` raises where one is not finite
        spread = f" ± {bounds.std():.3f} (sd of {len(bounds)} seeds)" if len(bounds) > 1 else ""
        log.info("epoch %.4g  val/bound %.3f%s", epoch, bounds.mean(), spread)

    def _regroup(self, group: list[int]) -> Stack:
        """The stack of a group."""
        if self._stack is None or self._stacked != group:
            if self._stack is not None:
                self._stack.release()
            members = [self.replicas[run] for run in group]
            self._stack = Stack([member.trainer.learner for member in members], [member.stream for member in members])
            self._stacked = group
        return self._stack

    def _go_on(self, run: int, step: Callable[[], Question]) -> None:
        """Let a run take its next step, up to its next question or its end."""
        _, stream, voice = self.replicas[run]
        self._questions.pop(run, None)
        with voice(), stream.current():
            try:
                self._questions[run] = step()
            except StopIteration as end:
                self.ends[run] = end.value
            except (Interrupted, Exception) as error:
                self.ends[run] = error

    def _stop_waiting(self) -> None:
        """Interrupt those that wait: they save where they stand."""
        error = Interrupted(self.interruption.asked() or 15)
        for run in list(self._questions):
            self._go_on(run, lambda run=run: self._courses[run].throw(error))


class _Failed(Exception):
    """What cannot be computed for several runs at once."""


def rehearse(replicas: Sequence[Replica]) -> str:
    """Why these runs cannot be trained side by side; empty if they can: what they compute together is what the first
    and the last of them compute alone. A decision on the edge may turn, so that three batches are tried. Nothing is
    changed by it.
    """
    stack = Stack([replica.trainer.learner for replica in replicas], [replica.stream for replica in replicas])
    try:
        for number in range(_REHEARSALS):
            if _agree(stack, replicas, number):
                return ""
    except _Failed as failed:
        return str(failed)
    finally:
        stack.release()
    return "together they do not compute what each computes alone"


def _agree(stack: Stack, replicas: Sequence[Replica], number: int) -> bool:
    """Whether losses and gradients of the training batch of a number are those of runs alone."""
    index = []
    for trainer, _, _ in replicas:
        batches = epoch_order(len(trainer.learner.dataset.train), trainer.seed, 0).split(trainer.learner.batch_size)
        index.append(batches[number % len(batches)])
    alone = {}
    for run in {0, len(replicas) - 1}:
        trainer, stream, _ = replicas[run]
        with stream.rehearsal(), stream.current():
            loss = trainer.gradients(index[run]).loss
        alone[run] = loss, [parameter.grad for parameter in trainer.parameters]
    with ExitStack() as rehearsals:
        for replica in replicas:
            rehearsals.enter_context(replica.stream.rehearsal())
        try:
            said = stack.gradients(index, replicas[0].trainer.settings.weights(0, 0))
        except (RunError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise _Failed(" ".join(str(error).split()).partition(". ")[0]) from error
    return all(
        _near(loss, said[run].loss) and _are_near(gradients, [p.grad for p in replicas[run].trainer.parameters])
        for run, (loss, gradients) in alone.items()
    )


def _are_near(ours: Sequence[Tensor | None], theirs: Sequence[Tensor | None]) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    flat = [(a.flatten(), b.flatten()) for a, b in pairs if a is not None and b is not None]
    return not flat or _near(torch.cat([a for a, _ in flat]), torch.cat([b for _, b in flat]))


def _near(ours: Tensor, theirs: Tensor) -> bool:
    """By norm; what is not finite is so in both."""
    error, size = (ours - theirs).norm(), ours.norm()
    if not torch.isfinite(size):
        return not bool(torch.isfinite(theirs.norm()))
    return bool(error <= _TOLERANCE * size + torch.finfo(ours.dtype).eps)
