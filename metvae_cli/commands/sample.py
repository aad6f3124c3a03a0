"""`metvae sample run=DIR`: pictures of a trained model as PNG files."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from metvae_cli.build import LoadedRun, load_run, plain
from metvae_cli.commands.hydra_entry import named_plugins, output_folder, run_with_hydra
from metvae_cli.data.base import spread_over
from metvae_cli.errors import ConfigError
from metvae_cli.evaluation import pictures
from metvae_cli.paths import discard_run
from metvae_cli.schema import call
from metvae_cli.torchvision_import import import_torchvision

log = logging.getLogger(__name__)


class Request:
    """What to draw.

    Args:
        run: directory of a run
        checkpoint: best or last
        count: samples of the prior
        data: test data in reconstructions and chains
        seed: of all draws
        device: auto, cpu, cuda, cuda:N or mps
        plugins: modules that the run was trained with

    Raises:
        ValueError: a number is out of range
    """

    def __init__(
        self,
        run: str | None,
        checkpoint: str = "best",
        count: int = 64,
        data: int = 8,
        seed: int = 0,
        device: str = "auto",
        plugins: Sequence[str] = (),
    ) -> None:
        if run is None:
            raise ValueError("run=null: name the directory of a run, like run=outputs/train/RUN")
        for name, value in (("count", count), ("data", data)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if checkpoint not in ("best", "last"):
            raise ValueError(f"checkpoint={checkpoint}: expected best or last")
        self.run = Path(run)
        self.checkpoint = checkpoint
        self.count = count
        self.data = data
        self.seed = seed
        self.device = device
        self.plugins = plugins


def main(argv: list[str]) -> int:
    """Draw; returns the exit status."""
    run_with_hydra(task, "sample", argv)
    return 0


def task(config: DictConfig) -> None:
    """One job of Hydra's."""
    folder = output_folder()
    try:
        request = call(Request, plain(config), "")
        run = load_run(request.run, request.checkpoint, request.device, named_plugins())
    except ConfigError:
        discard_run(folder)
        raise
    sample(run, request, folder)


def sample(run: LoadedRun, request: Request, folder: Path) -> None:
    """Write the pictures into `folder` and say where they are."""
    torch.manual_seed(request.seed)
    for name, image in _draw(run, request).items():
        path = folder / f"{name}.png"
        import_torchvision().utils.save_image(image, path)
        print(path)


def _draw(run: LoadedRun, request: Request) -> dict[str, Any]:
    test = run.dataset.test
    every = torch.arange(min(2000, len(test)))
    labels = None if test.labels is None else test.labels[every]
    drawn = {"latent": pictures.latent_scatter(run.model, run.dataset.held_out(test, every), labels)}
    if not pictures.is_image(run.dataset.event_shape):
        log.warning("the data are no images: only the latent scatter is drawn")
        return drawn
    x = run.dataset.held_out(test, spread_over(len(test), request.data))
    drawn["prior_samples"] = pictures.prior_samples(run.model, request.count, run.device)
    drawn["reconstructions"] = pictures.reconstructions(run.model, run.sampler, x)
    if run.sampler.num_steps:
        drawn["chain"] = pictures.chain(run.model, run.sampler, x)
    return drawn
