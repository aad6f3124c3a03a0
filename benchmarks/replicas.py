"""What an iteration of R seeds side by side costs (`trainer.replicas=R`), in iterations of one run alone.

    python -m benchmarks.replicas
    python -m benchmarks.replicas --experiments digits_vae --counts 1,2,4 --seconds 10

Iterations only: gradients, clipping, steps, adaptations; no validation and
no checkpoint. All counts take turns. R = 1 is the batched program of one run, which `metvae train` would not use.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.contenders import NEVER, Run
from benchmarks.measuring import Budget, Neighbours, machine_lines, take_turns
from benchmarks.rows import is_noisy
from benchmarks.words import Parser, duration, one_of, positive, several
from metvae_cli.build import build_experiment
from metvae_cli.commands.hydra_entry import composed_alone
from metvae_cli.commands.train_run import make_trainer
from metvae_cli.errors import ConfigError
from metvae_cli.paths import config_dir
from metvae_cli.plain_config import plain
from metvae_cli.tracking.tracker import Silence
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.stack import Stack
from metvae_cli.training.streams import Stream
from metvae_cli.training.trainer import Trainer


def make(experiment: str, seed: int, folder: Path) -> Trainer:
    """A trainer of a seed that only trains."""
    quiet = [f"trainer.max_epochs={NEVER}", f"trainer.validate_every={NEVER}", f"trainer.checkpoint_seconds={NEVER}"]
    words = [f"experiment={experiment}", f"seed={seed}", "trainer.device=cpu", "trainer.picture_every=0", *quiet]
    built = build_experiment(plain(composed_alone("train", words)), [])
    return make_trainer(built, folder / f"{experiment}_{seed}", Silence(), Interruption())


def alone(trainer: Trainer) -> Run:
    """Iterations of one run."""
    index = torch.arange(trainer.learner.batch_size)

    def run(count: int) -> None:
        for _ in range(count):
            trainer.step(trainer.gradients(index))
            trainer.state.iteration += 1

    return run


def side_by_side(trainers: Sequence[Trainer]) -> Run:
    """Iterations of several."""
    streams = [Stream() for _ in trainers]
    stack = Stack([trainer.learner for trainer in trainers], streams)
    index = [torch.arange(trainer.learner.batch_size) for trainer in trainers]

    def run(count: int) -> None:
        for _ in range(count):
            weights = trainers[0].settings.weights(0, trainers[0].state.iteration)
            for trainer, stream, batch in zip(trainers, streams, stack.gradients(index, weights), strict=True):
                with stream.current():
                    trainer.step(batch)
                trainer.state.iteration += 1

    return run


def row(experiment: str, counts: Sequence[int], seconds: float) -> str:
    """Milliseconds of one alone, and how many times that the others take; `~` if something else was running."""
    with TemporaryDirectory() as folder:
        runs = {"alone": alone(make(experiment, 0, Path(folder)))}
        for count in counts:
            trainers = [make(experiment, seed, Path(folder) / str(count)) for seed in range(count)]
            runs[str(count)] = side_by_side(trainers)
        neighbours = Neighbours()
        times = take_turns(runs, Budget(seconds))
        mark = " ~" if is_noisy(times.values(), neighbours.cores()) else ""
    own = times.pop("alone").median
    return f"{experiment:22}{own:8.2f} ms" + "".join(f"{each.median / own:8.2f}" for each in times.values()) + mark


def experiments() -> list[str]:
    """Those of `metvae train`."""
    names = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))
    return [name for name in names if not name.startswith("infer_")]


def parser() -> Parser:
    """Which words there are."""
    made = Parser(prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    names = "digits_vae,digits_lmcvae,digits_metvae_hmc"
    add("--experiments", type=several(one_of(experiments())), default=names, help="(%(default)s)")
    add("--counts", type=several(positive), default="1,2,4,8,16", help="values of R (%(default)s)")
    add("--seconds", type=duration, default="15", help="of each row (%(default)s)")
    add("--threads", type=positive, default="1", help="of the CPU (%(default)s)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    made = parser()
    asked = made.parse_args(argv)
    if asked.threads > (os.cpu_count() or 1):
        made.error(f"--threads {asked.threads}: this machine has {os.cpu_count()}")
    print("  ".join(f"{name}: {value}" for name, value in machine_lines("cpu", asked.threads).items()))
    print("alone: ms of an iteration of one run; R: of R runs side by side, in those of one (less than R is a gain)")
    print(f"{'experiment':22}{'alone':>11}" + "".join(f"{f'R={count}':>8}" for count in asked.counts), flush=True)
    for experiment in asked.experiments:
        torch.set_num_threads(asked.threads)
        try:
            print(row(experiment, asked.counts, asked.seconds), flush=True)
        except ConfigError as error:
            made.error(f"{experiment}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
