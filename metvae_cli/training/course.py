"""The course of a training run: a sequence of questions about batches, and what is made of the answers.

A trainer decides what is computed next and what follows from it; computing it is the business of whoever carries the
course out: the trainer itself, or one program for several runs side by side (`replicas.py`).
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from metvae_cli.kernels.adaptation import Outcome
from metvae_cli.training.metrics import Metrics

T = TypeVar("T")

# What is asked for: the gradients of the training batch at an index (B,), or, None, the means over validation data.
Question = Tensor | None
Course = Generator[Question, Any, str]


class Batch(NamedTuple):
    """What a training batch says, beside the gradients, which are in the parameters.

    size: B
    loss: ()
    metrics: of the batch
    outcome: for adaptations
    evaluations: latent vectors decoded
    score_part: the score-function part of each gradient; None where there is none, or nobody logs it
    """

    size: int
    loss: Tensor
    metrics: Metrics
    outcome: Outcome
    evaluations: int
    score_part: Sequence[Tensor | None] | None


def carry_out(course: Generator[Question, Any, T], answer: Callable[[Question], Any]) -> T:
    """Answer all questions of a course; returns what it ends with. What an answer raises is raised in the course."""
    try:
        question = next(course)
        while True:
            try:
                said = answer(question)
            except BaseException as error:
                question = course.throw(error)
            else:
                question = course.send(said)
    except StopIteration as end:
        return end.value
