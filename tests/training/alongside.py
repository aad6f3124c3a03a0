"""Seeds in one program, the same seeds alone, and in what they differ."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from metvae_cli.build import build_experiment
from metvae_cli.errors import RunError
from metvae_cli.training.checkpoint import load_checkpoint
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.replicas import Replica, Replicas, rehearse
from metvae_cli.training.streams import Stream
from metvae_cli.training.trainer import Trainer
from tests.runs import configuration
from tests.training.training import SMALL, Notes, notes

SEEDS = (3, 4, 5)
# Sums over samples and pixels are in another order; chains of some dozens of iterations multiply that.
NEAR = 1e-9
At = Callable[[Trainer, str, int], None]


def make(
    folder: Path, seed: int, words: Sequence[str], *, at: At | None = None, precise: bool = True, resume: bool = False
) -> Trainer:
    """A trainer of a seed in a folder of its own, in double precision if wanted."""
    unfit = ("hidden",) * any("conv" in word for word in words) + ("num_steps",) * ("sampler=none" in words)
    small = [word for word in SMALL if not any(key in word for key in unfit)]
    experiment = build_experiment(configuration(*small, "trainer.max_epochs=5", *words, f"seed={seed}"), [])
    learner, place = experiment.learner, folder / str(seed)
    place.mkdir(parents=True, exist_ok=True)
    for part in (learner.model, learner.sampler, *learner.adaptations) if precise else ():
        for tensor in (*part.parameters(), *part.buffers()):
            tensor.data = tensor.data.double() if tensor.is_floating_point() else tensor.data
    content = load_checkpoint(place / "last.pt") if resume else None
    tracker = Notes(place, content["state"]["log_position"] if content else 0)
    trainer = Trainer(learner, experiment.settings, seed, place, tracker, Interruption())
    if at is not None:
        tracker.at = lambda kind, number: at(trainer, kind, number)
    if content is not None:
        trainer.restore(content)
    return trainer


def side_by_side(folder: Path, words: Sequence[str], *, at: At | None = None, resume: bool = False) -> Replicas:
    """The seeds in one program, not begun."""
    replicas = []
    for seed in SEEDS:
        trainer = make(folder, seed, words, at=at, resume=resume)
        replicas.append(Replica(trainer, Stream()))
    interruption = Interruption()
    for replica in replicas:
        replica.trainer.exchange.interruption = interruption
    return Replicas(replicas, interruption)


def apart(own: Trainer, stream: torch.Tensor, replica: Replica) -> list[str]:
    """In what a replica is not the run alone, whose random stream ended so."""
    trainer, found = replica.trainer, []
    for name, ours in own.modules.state_dict().items():
        if not torch.allclose(ours, trainer.modules.state_dict()[name], rtol=0, atol=NEAR, equal_nan=True):
            found.append(name)
    if not torch.equal(stream, replica.stream.generators["cpu"].get_state()):
        found.append("random stream")
    for ours, theirs in zip(notes(own).rows, notes(trainer).rows, strict=True):
        measured = [name for name in ours if name != "seconds"]
        found += [name for name in measured if ours[name] != pytest.approx(theirs[name], abs=NEAR, rel=NEAR)]
    plain = ("epoch", "batch", "iteration", "evaluations", "validations_since_best", "bad_steps", "best_epoch")
    return found + [name for name in plain if getattr(own.state, name) != getattr(trainer.state, name)]


def alone(folder: Path, seed: int, words: Sequence[str], at: At | None = None) -> tuple[Trainer, torch.Tensor, str]:
    """A run alone, its stream at the end, and how it ended."""
    trainer = make(folder, seed, words, at=at)
    try:
        end = trainer.fit()
    except RunError as error:
        end = str(error)
    return trainer, torch.get_rng_state(), end


def compare(tmp_path: Path, words: Sequence[str], at: At | None = None) -> list[str | BaseException]:
    """Train both ways; returns how each seed ended, once all else has been found equal."""
    together = side_by_side(tmp_path / "together", words, at=at)
    assert rehearse(together.replicas) == ""
    ends = together.fit()
    for seed, replica, end in zip(SEEDS, together.replicas, ends, strict=True):
        own, stream, own_end = alone(tmp_path / "alone", seed, words, at)
        assert apart(own, stream, replica) == []
        assert str(end) == own_end
    return ends
