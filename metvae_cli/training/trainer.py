"""The training loop.

    for each epoch: one pass in the order given by (seed, epoch), then validation on held-out training data

State is complete between any two iterations: a checkpoint taken there and resumed ends, on a CPU, bitwise where the
uninterrupted run ends. Nothing but training batches ever changes parameters, step sizes or the random stream.
"""

import logging
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metvae_cli.data.base import Split, epoch_order
from metvae_cli.errors import Interrupted
from metvae_cli.models.base import TrainedModel
from metvae_cli.samplers.assembly import step_sizes
from metvae_cli.training.checkpoint import load_checkpoint, random_states, restore_random_states, save_checkpoint
from metvae_cli.training.course import Batch, Course, Question, carry_out
from metvae_cli.training.device import fork_rng
from metvae_cli.training.exchange import Exchange
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.metrics import (
    RunningMean,
    batch_metrics,
    gradient_part_norms,
    peak_memory_mb,
    score_function_gradients,
    weighted_loss,
)
from metvae_cli.training.optimizer import clip_gradients, leave_out, restore_optimizer
from metvae_cli.training.processes import OneProcess, Processes, share_of
from metvae_cli.training.settings import TrainerSettings
from metvae_cli.training.state import Learner, State, Tracker, limit_reached, require_good_steps, require_trained

log = logging.getLogger(__name__)

PRUNED = "pruned"  # why `fit` ended, where `is_behind` said so
VALIDATION_SEED = 1_234_567


class Trainer:
    """Trains a learner.

    Args:
        learner: model, sampler, objective, data and optimizer
        settings: limits and intervals
        seed: of the order of the data
        folder: where `last.pt` and `best.pt` go
        tracker: where the numbers go
        interruption: asked between iterations whether to stop
        processes: those that train together; the first one writes
        is_behind: asked after each validation, with epochs and bound, whether to give the run up
    """

    def __init__(
        self,
        learner: Learner[TrainedModel],
        settings: TrainerSettings,
        seed: int,
        folder: Path,
        tracker: Tracker,
        interruption: Interruption,
        processes: Processes | None = None,
        is_behind: Callable[[int, float], bool] | None = None,
    ) -> None:
        self.learner = learner
        self.settings = settings
        self.seed = seed
        self.folder = folder
        self.tracker = tracker
        self.processes: Processes = processes or OneProcess()
        self.exchange = Exchange(self.processes, interruption)
        self.is_behind = is_behind
        self.pruned = False
        self.state = State()
        self.running = RunningMean()
        self.modules = nn.ModuleDict({"model": learner.model, "sampler": learner.sampler})
        self.parameters = list(self.modules.parameters())
        self.num_batches = math.ceil(len(learner.dataset.train) / learner.batch_size)
        self.random_states = random_states  # of the streams that training draws from
        self._saved_at = time.monotonic()
        self._gradient_norms: dict[str, float] = {}

    def fit(self) -> str:
        """Train until a limit is reached; returns its name.

        Raises:
            Interrupted: a signal came; the state has been saved
            RunError: too many consecutive steps were not finite, or no validation ever was
        """
        return carry_out(self.course(), self.answer)

    def course(self) -> Course:
        """`fit` as a sequence of questions: what is computed of batches is asked for, all else is done here."""
        self.exchange.start(self.state.seconds)
        if self.state.iteration == 0:
            self.save("last.pt")  # a run that is killed early can be resumed too
        with self._saved_if_interrupted():
            while not (reason := self.stop_reason()):
                yield from self.epoch()
                if self.state.batch >= self.num_batches:
                    yield from self._end_of_epoch()
            if self.state.validated_at != self.state.iteration:
                yield from self._validate()
            self.save("last.pt")  # with the seconds at which the run ended, so that a resume does not train on
        require_trained(self.state)
        return reason

    def answer(self, question: Question) -> Batch | dict[str, float]:
        """What a training batch says, or the means over validation data."""
        if question is not None:
            return self.gradients(question)
        valid = self.learner.dataset.valid
        return self.evaluate(valid, torch.arange(len(valid)), log_weights=True)

    def epoch(self) -> Generator[Question, Any, None]:
        """What is left of an epoch, or up to a limit, as questions."""
        order = epoch_order(len(self.learner.dataset.train), self.seed, self.state.epoch)
        batches = order.split(self.learner.batch_size)
        while self.state.batch < len(batches) and not self.stop_reason():
            self.step((yield batches[self.state.batch]))
            self.state.batch += 1
            self.state.iteration += 1
            self.tracker.progress(self.state.epoch, self.state.batch, len(batches))
            if self.state.iteration % self.settings.log_every == 0:
                self._log_training()
            if time.monotonic() - self._saved_at > self.settings.checkpoint_seconds:
                self.save("last.pt")
            self.exchange.check()

    def gradients(self, index: Tensor) -> Batch:
        """What the batch at an index says; its gradients are in the parameters."""
        learner, weights = self.learner, self.settings.weights(self.state.epoch, self.state.iteration)
        share = share_of(self.processes, len(index))
        x = share.batch(learner.dataset, index.to(learner.dataset.train.values.device))
        if not (learner.model.training and learner.sampler.training):
            self.modules.train()
        with share.draws():
            output = learner.objective(learner.model, learner.sampler, x, 1 / weights.kl)
        for parameter in self.parameters:
            parameter.grad = None
        score_part = score_function_gradients(output.score_loss, self.parameters) if weights.logs else []
        (weights.kl * weighted_loss(output.loss, output.score_loss, weights.score)).backward()
        if not weights.trains_model:
            leave_out(learner.model)
        metrics, outcome = batch_metrics(output, learner.model, 1 / weights.kl), output.outcome
        loss, evaluations = output.loss.detach(), output.evaluations
        if self.processes.size > 1:
            score_part = self.exchange.mean_of_parts(score_part, share)
            loss, evaluations, metrics, outcome = self.exchange.batch(output, self.parameters, metrics, share)
        has_score_part = weights.logs and output.score_loss is not None
        return Batch(len(index), loss, metrics, outcome, evaluations, score_part if has_score_part else None)

    def step(self, batch: Batch) -> None:
        """Take the step that a batch asks for, or none where it is not finite."""
        learner, weights = self.learner, self.settings.weights(self.state.epoch, self.state.iteration)
        if batch.score_part is not None:
            self._gradient_norms = gradient_part_norms(self.parameters, batch.score_part, weights.kl * weights.score)
        norm = clip_gradients(self.parameters, self.settings.clip_norm)
        self.state.evaluations += batch.evaluations
        if not (math.isfinite(norm) and math.isfinite(batch.loss)):
            self._bad_step()
            return
        self.state.consecutive_bad_steps = 0
        learner.optimizer.step()
        for adaptation in learner.adaptations:
            adaptation.update(batch.outcome)
        self.running.add(batch.metrics.plus("gradient_norm", norm), batch.size)

    def _bad_step(self) -> None:
        self.state.bad_steps += 1
        self.state.consecutive_bad_steps += 1
        log.warning("iteration %d: loss or gradient is not finite; step skipped", self.state.iteration + 1)
        require_good_steps(self.state, self.settings.max_bad_steps)

    def _end_of_epoch(self) -> Generator[Question, Any, None]:
        state, settings = self.state, self.settings
        if (state.epoch + 1) % settings.validate_every == 0 and state.validated_at != state.iteration:
            yield from self._validate()
        if settings.picture_every and (state.epoch + 1) % settings.picture_every == 0:
            self.tracker.pictures(state.iteration)
        with warnings.catch_warnings():
            # torch knows of no optimizer step before a resume, nor of an epoch in which no step was finite.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler", UserWarning)
            self.learner.scheduler.step()
        state.train_means, self.running = self.running.means(), RunningMean()
        self.exchange.check_equal(self.parameters)
        state.epoch, state.batch = state.epoch + 1, 0
        self.save("last.pt")

    def stop_reason(self) -> str:
        """The limit that has been reached; empty if none has."""
        return limit_reached(self.settings, self.state, self._seconds()) or (PRUNED if self.pruned else "")

    # ---------------------------------------------------------------- validation and logs

    def _validate(self) -> Generator[Question, Any, None]:
        state = self.state
        means = yield None
        before = {} if state.batch else state.train_means  # an epoch without a good step has no means, but columns
        train_means = self.running.means() or before or dict.fromkeys((*means, "gradient_norm"), math.nan)
        epoch = state.epoch + state.batch / self.num_batches
        row = {
            "epoch": epoch,
            "iteration": state.iteration,
            "seconds": round(self._seconds(), 3),
            "decoder_evaluations": state.evaluations,
            "bad_steps": state.bad_steps,
            "lr": self.learner.optimizer.param_groups[0]["lr"],
            **{f"train/{name}": value for name, value in train_means.items()},
            **{f"val/{name}": value for name, value in means.items()},
            **self._step_sizes(),
        }
        self.tracker.row(row)
        self.tracker.scalars(state.iteration, {f"val/{name}": value for name, value in means.items()})
        log.info("epoch %.4g  train/bound %.3f  val/bound %.3f", epoch, train_means["bound"], means["bound"])
        state.validated_at = state.iteration
        state.validations_since_best += 1
        if state.best_value < means["bound"] < math.inf:
            state.best_value, state.best_epoch, state.validations_since_best = means["bound"], epoch, 0
            self.save("best.pt")
        ask = self.is_behind if math.isfinite(means["bound"]) else None
        self.pruned = self.processes.tell(ask is not None and ask(math.ceil(epoch), means["bound"]))

    @torch.no_grad()
    def evaluate(self, split: Split, index: Tensor, *, log_weights: bool = False) -> dict[str, float]:
        """Mean metrics over held-out data, always with the same noise; training's random stream is untouched."""
        learner, running = self.learner, RunningMean()
        self.modules.eval()
        with fork_rng(VALIDATION_SEED):
            for part in index.split(learner.batch_size):
                share = share_of(self.processes, len(part))
                x = share.held_out(learner.dataset, split, part)
                with share.draws():
                    output = learner.objective(learner.model, learner.sampler, x)
                metrics, weights = batch_metrics(output, learner.model), output.log_weights
                if self.processes.size > 1:
                    metrics, weights = self.exchange.held_out(metrics, weights, share)
                self.exchange.check()
                running.add(metrics, len(part))
                if log_weights and running.count == len(part):
                    self.tracker.log_weights(self.state.iteration, weights)
        return running.means()

    def _log_training(self) -> None:
        state, seconds, data = self.state, self._seconds(), len(self.learner.dataset.train)
        values = {f"train/{name}": value for name, value in self.running.means().items()}
        values |= self._step_sizes() | {f"train/{name}": value for name, value in self._gradient_norms.items()}
        values["train/kl_weight"] = self.settings.kl_weight(state.epoch)
        values["train/lr"] = self.learner.optimizer.param_groups[0]["lr"]
        values["train/bad_steps"] = state.bad_steps
        images = state.epoch * data + min(state.batch * self.learner.batch_size, data)  # the last batch may be short
        values["speed/images_per_second"] = images / seconds
        values["speed/decoder_evaluations_per_second"] = state.evaluations / seconds
        values["memory/peak_mb"] = peak_memory_mb()
        self.tracker.scalars(state.iteration, values)

    def _step_sizes(self) -> dict[str, float]:
        found = step_sizes(self.learner.sampler)
        return {f"step_size/{k + 1}": float(step().detach().mean()) for k, step in enumerate(found)}

    def _seconds(self) -> float:
        return self.exchange.seconds()

    # ---------------------------------------------------------------- saving and resuming

    def save(self, name: str) -> None:
        """Write a checkpoint of everything that a resume needs: the first process, which is as good as any."""
        learner, state = self.learner, self.state
        state.running, state.running_count = self.running.state()
        state.log_position, state.seconds = self.tracker.position(), self._seconds()
        content: dict[str, Any] = {
            "model": learner.model.state_dict(),
            "sampler": learner.sampler.state_dict(),
            "optimizer": learner.optimizer.state_dict(),
            "scheduler": learner.scheduler.state_dict(),
            "adaptations": [adaptation.state_dict() for adaptation in learner.adaptations],
            "state": asdict(state),
            "random": self.random_states(),
        }
        if self.processes.rank == 0:
            save_checkpoint(self.folder / name, content)
        self._saved_at = time.monotonic()

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same configuration."""
        learner = self.learner
        learner.model.load_state_dict(content["model"])
        learner.sampler.load_state_dict(content["sampler"])
        restore_optimizer(learner.optimizer, content["optimizer"])
        learner.scheduler.load_state_dict(content["scheduler"])
        for adaptation, saved in zip(learner.adaptations, content["adaptations"], strict=True):
            adaptation.load_state_dict(saved)
        self.state = State(**content["state"])
        self.running = RunningMean(self.state.running, self.state.running_count)
        restore_random_states(content["random"])

    def load_weights(self, name: str) -> None:
        """Put the weights of a checkpoint of this run into model and sampler."""
        content = load_checkpoint(self.folder / name, self.state.run) if self.processes.rank == 0 else {}
        content = self.processes.tell(content)
        self.learner.model.load_state_dict(content["model"])
        self.learner.sampler.load_state_dict(content["sampler"])

    @contextmanager
    def _saved_if_interrupted(self) -> Iterator[None]:
        try:
            yield
        except Interrupted:
            self.save("last.pt")
            raise
