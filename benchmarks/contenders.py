"""What is timed: the iteration of the training loop, of a method built from its experiment, on synthetic images.

The loop's own code runs (`Trainer.gradients`, `Trainer.step`): gradient, clipping, step, adaptations, metrics and their
running means. The batch is ready, it is always the same one, and the learning rate is so small that the model stays
where it starts: what is timed does not depend on how long it has been timed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from metvae_cli.build import Experiment, build_experiment
from metvae_cli.commands.hydra_entry import composed_alone
from metvae_cli.commands.train_run import make_trainer
from metvae_cli.data.base import Dataset, Split
from metvae_cli.models.perceptron_score import PerceptronScore
from metvae_cli.plain_config import plain
from metvae_cli.tracking.tracker import Silence
from metvae_cli.training.interruption import Interruption

Kind = Literal["plain", "chain", "flow", "first_order"]
Run = Callable[[int], None]  # so many iterations

NETS = {"fc400": ("encoder=mlp400", "decoder=mlp400"), "conv": ("encoder=conv", "decoder=conv")}
IMAGES = 60_000
NEVER = 1_000_000_000


class NotMeasuredError(Exception):
    """Why a row has no time: a step was skipped, whose time is not that of a step, or a command failed."""


class Method(NamedTuple):
    """kind: of its floor. words: beside those of its experiment. steps: K, where it is not the one asked for."""

    experiment: str
    kind: Kind
    words: tuple[str, ...] = ()
    steps: int | None = None


METHODS = {
    "vae": Method("vae", "plain", steps=0),
    "iwae10": Method("iwae", "plain", ("objective.num_samples=10",), steps=0),
    "iwae50": Method("iwae", "plain", ("objective.num_samples=50",), steps=0),
    "renyi": Method("renyi", "plain", steps=0),
    "flow_vae": Method("flow_vae", "plain", steps=0),
    "metvae_flow": Method("metvae_flow", "flow"),
    "metvae_hmc": Method("metvae_hmc", "chain"),
    "metvae_stopped": Method("metvae_stopped", "chain"),
    "lmcvae": Method("lmcvae", "chain"),
    "amcvae": Method("amcvae", "chain"),
    "uha": Method("uha", "chain"),
    "uha_whitened": Method("uha", "chain", ("sampler.precondition=encoder", "sampler.step_size=0.3")),
    "hvae": Method("hvae", "chain"),
    "hoffman": Method("hoffman", "first_order"),
    "vcd": Method("vcd", "first_order"),
}


class Machine(NamedTuple):
    """Where the rows are measured. images: the file of synthetic pixels."""

    device: str
    threads: int
    images: Path


class Case(NamedTuple):
    """One row. words: the last on the command line, for tests and for the growth of the cost."""

    net: str
    method: str
    steps: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready(Dataset):
    """A data set that is one batch, drawn already."""

    def batch(self, index: Tensor) -> Tensor:
        """That batch."""
        return self.train.values


class Contender(NamedTuple):
    """A method on its batch x (B, *event). leapfrogs: L of each step."""

    experiment: Experiment
    kind: Kind
    x: Tensor
    leapfrogs: int

    @property
    def passes(self) -> int:
        """Value-and-gradients (values, where no score is needed) of the decoder that the method's chain needs."""
        return 1 + self.experiment.learner.sampler.num_steps * self.leapfrogs

    @property
    def expected(self) -> int:
        """Latent vectors that it has to decode: what trains the decoder without the chain's graph is one pass more."""
        again = self.kind == "first_order"
        return (self.passes + again) * self.experiment.learner.objective.num_samples * len(self.x)


def write_images(folder: Path, count: int = IMAGES) -> Path:
    """Random grey levels of MNIST's shape, in a file of their own."""
    path = folder / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), dtype=np.uint8))
    return path


def cases(nets: list[str], methods: list[str], steps: list[int], words: tuple[str, ...] = ()) -> list[Case]:
    """The rows asked for."""
    found = []
    for net in nets:
        for method in methods:
            own = METHODS[method].steps
            found += [Case(net, method, count, words) for count in (steps if own is None else [own])]
    return found


def words_of(case: Case, machine: Machine) -> list[str]:
    """What one would say to `metvae train`."""
    method = METHODS[case.method]
    return [
        f"experiment=mnist_{method.experiment}",
        "dataset=array",
        f"dataset.path={machine.images}",
        "dataset.binarization=dynamic",
        f"trainer.device={machine.device}",
        f"trainer.threads={machine.threads}",
        *NETS[case.net],
        *([f"sampler.num_steps={case.steps}"] if case.steps else []),
        *method.words,
        *case.words,
    ]


def make_contender(case: Case, machine: Machine) -> Contender:
    """Build it as the command would, and draw its batch."""
    still = ["optimizer.lr=1e-8", f"trainer.log_every={NEVER}"]
    config = plain(composed_alone("train", [*words_of(case, machine), *still]))
    experiment = build_experiment(config, [])
    dataset = experiment.learner.dataset
    x = dataset.batch(torch.arange(experiment.learner.batch_size))
    few = Split(x)
    learner = experiment.learner._replace(dataset=Ready("batch", few, few, few, dataset.support))
    leapfrogs = config["sampler"].get("num_leapfrog", 1)
    return Contender(experiment._replace(learner=learner), METHODS[case.method].kind, x, leapfrogs)


def training(contender: Contender) -> Run:
    """The iterations of its training loop, which raise NotMeasuredError where one is skipped."""
    trainer = make_trainer(contender.experiment, Path(), Silence(), Interruption())
    index = torch.arange(len(contender.x))

    def run(count: int) -> None:
        for _ in range(count):
            trainer.step(trainer.gradients(index))
            trainer.state.iteration += 1
            if trainer.state.bad_steps:
                raise NotMeasuredError(f"step {trainer.state.iteration} was not finite, and so was not made")

    return run


@contextmanager
def latents_decoded(decoder: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the latent vectors of each pass of the decoder are noted, (n, D): it is called, or its closed form is."""
    passes: list[Tensor] = []
    parameters = {id(parameter) for parameter in decoder.parameters()}
    closed = PerceptronScore.__call__

    def noted(form: PerceptronScore, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if id(form.layers.parameters[0]) in parameters:
            passes.append(z.detach().flatten(0, -2))
        return closed(form, z, x)

    hook = decoder.register_forward_hook(lambda module, given, output: passes.append(given[0].detach().flatten(0, -2)))
    PerceptronScore.__call__ = noted
    try:
        yield passes
    finally:
        hook.remove()
        PerceptronScore.__call__ = closed
