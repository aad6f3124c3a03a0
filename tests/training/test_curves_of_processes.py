"""Two processes train as one does: the same curve, in double precision to the last digits, whatever is decided.

In single precision sums over a batch are rounded differently, and an acceptance within that rounding of its coin is
decided differently once in a while; after such a decision two curves part, as they do between two machines. Hence the
proof in double precision, where that does not happen.
"""

import logging
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from metvae_cli.build import build_experiment
from metvae_cli.data.base import Dataset, Split
from metvae_cli.tracking.tracker import Silence
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.trainer import Trainer
from tests.faults.processes import make_ready
from tests.training.training import SMALL, Notes, configuration

pytest.importorskip("lightning_fabric")

CLASSIC = ("sampler=hmc", "objective=metvae")  # decisions that are drawn
METHODS = {
    "hmc": (*CLASSIC, "trainer.kl_warmup_epochs=2"),
    "uneven": (*CLASSIC, "dataset.batch_size=31", "trainer.clip_norm=0.5", "sampler.acceptance=metropolis"),
    "dual_averaging": (*CLASSIC, "sampler.step_size_rule=dual_averaging", "sampler.acceptance=metropolis"),
    "variance_sensitive": ("objective=metvae", "sampler=langevin", "sampler.step_size_rule=variance_sensitive"),
    "running": (*CLASSIC, "objective.baseline=running", "objective.num_samples=1", "trainer.inference_iterations=1"),
    "enumerated": (*CLASSIC, "sampler.decisions=enumerated", "sampler.reverse=exact", "sampler.cloned_decoder=true"),
    "preconditioned": (*CLASSIC, "sampler.precondition=adapted", "prior=mixture", "dataset.binarization=static"),
    "flow": ("experiment=digits_metvae_flow", "sampler.num_steps=2"),
    "checkpointed": (*CLASSIC, "trainer.checkpoint_chain=true", "sampler.acceptance=metropolis", "trainer.log_every=1"),
    "uha": ("experiment=digits_uha", "encoder.head=low_rank"),
    "stopped": ("experiment=digits_metvae_stopped", "trainer.checkpoint_chain=true"),
    "hoffman": ("experiment=digits_hoffman",),
    "vcd": ("experiment=digits_vcd",),
    "iwae": ("experiment=digits_iwae", "objective.gradient=dreg", "sampler.num_steps=0"),
    "levels": (*CLASSIC, "likelihood=discretized_logistic", "dataset.binarization=none", "encoder.flow=realnvp"),
}


class DoubleDataset(Dataset):
    """Its values in double precision."""

    def batch(self, index: Tensor) -> Tensor:
        return super().batch(index).double()

    def held_out(self, split: Split, index: Tensor) -> Tensor:
        return super().held_out(split, index).double()


def work(rank: int, size: int, port: int, words: tuple[str, ...], wrong: str, result: str) -> None:
    """Train in double precision, as one of several; the first process writes down what came out."""
    logging.disable(logging.ERROR)
    if size > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": 0}
        own = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in (names | own).items()})
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    experiment = build_experiment(configuration(*SMALL, *words, f"trainer.devices={size}"), [])
    learner = experiment.learner
    if wrong == "stream":
        torch.manual_seed(rank)
    dataset = DoubleDataset(**{name: getattr(learner.dataset, name) for name in Dataset.__dataclass_fields__})
    learner = learner._replace(dataset=dataset)
    folder, settings = Path(result).parent, replace(experiment.settings, max_epochs=4)
    notes = Silence() if rank else Notes(folder)
    processes = experiment.processes
    trainer = Trainer(learner, settings, experiment.seed, folder, notes, Interruption(), processes)
    trainer.fit()
    processes.leave()
    if isinstance(notes, Notes):
        states = {"model": learner.model.state_dict(), "sampler": learner.sampler.state_dict()}
        adapted = [part.state_dict() for part in learner.adaptations]
        torch.save({"rows": notes.rows, "seen": notes.seen, **states, "adapted": adapted}, result)


def outcome(folder: Path, size: int, *words: str, wrong: str = "") -> dict[str, Any]:
    """What a run by so many processes came to."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    make_ready()
    start_processes(work, (size, port, words, wrong, str(folder / "result.pt")), size, start_method="forkserver")
    return torch.load(folder / "result.pt")


def numbers(value: Any, name: str = "") -> dict[str, float | Tensor]:
    """Every number by its place, without what the clock decides."""
    if isinstance(value, dict):
        pairs = [(f"{name}/{key}", entry) for key, entry in value.items()]
    elif isinstance(value, list | tuple):
        pairs = [(f"{name}/{index}", entry) for index, entry in enumerate(value)]
    else:
        return {name: value} if isinstance(value, Tensor | float | int) else {}
    clock = ("seconds", "per_second", "peak_mb")
    return {k: v for place, entry in pairs if not place.endswith(clock) for k, v in numbers(entry, place).items()}


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Relative to numbers above one."""
    first, second = numbers(one), numbers(other)
    assert first.keys() == second.keys()
    worst = 0.0
    for place, value in first.items():
        a, b = torch.as_tensor(value, dtype=torch.float64), torch.as_tensor(second[place], dtype=torch.float64)
        assert torch.equal(a.isnan(), b.isnan()), place
        known = ~a.isnan()
        if known.any():
            worst = max(worst, float(((a - b).abs() / a.abs().clamp(min=1))[known].max()))
    return worst


def compare(folder: Path, size: int, *words: str) -> float:
    return largest_difference(outcome(folder / "one", 1, *words), outcome(folder / "several", size, *words))


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    assert compare(tmp_path, 2, "sampler.step_size_rule=dual_averaging", "sampler.acceptance=metropolis") < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_as_one_does_by_every_method(tmp_path: Path, method: str) -> None:
    assert compare(tmp_path, 2, *METHODS[method]) < 1e-6


@pytest.mark.slow
def test_three_processes_with_batches_smaller_than_they_are_many(tmp_path: Path) -> None:
    """The last batch of an epoch has two data: 320 = 35 * 9 + 5 would not do, 53 * 6 + 2 does."""
    assert compare(tmp_path, 3, "dataset.batch_size=53") < 1e-6


@pytest.mark.slow
def test_processes_with_streams_of_their_own_are_found_out(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no longer hold the same model or random stream"):
        outcome(tmp_path / "wrong", 2, wrong="stream")
