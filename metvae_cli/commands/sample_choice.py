"""Which pictures make sense for a run, and why others do not."""

import logging
from collections.abc import Sequence
from typing import get_args

from metvae_cli.build import LoadedRun
from metvae_cli.commands.sample_request import PictureName, Request
from metvae_cli.errors import ConfigError
from metvae_cli.evaluation.grids import is_image

log = logging.getLogger(__name__)


def chosen(run: LoadedRun, request: Request) -> list[PictureName]:
    """The pictures to draw, those that were asked for or all that make sense; one note says what is left out.

    Raises:
        ConfigError: one that was asked for makes no sense
    """
    names: Sequence[PictureName] = get_args(PictureName) if request.pictures is None else request.pictures
    obstacles: dict[PictureName, str | None] = {name: _obstacle(name, run, request) for name in names}
    missing: dict[str, list[str]] = {}
    for name, obstacle in obstacles.items():
        if obstacle is not None and request.pictures is not None:
            raise ConfigError(f"pictures=[{name}]: {obstacle}")
        if obstacle is not None:
            missing.setdefault(obstacle, []).append(name)
    if missing:
        log.warning("note: left out: %s", ". ".join(f"{', '.join(left)}: {why}" for why, left in missing.items()))
    return [name for name, obstacle in obstacles.items() if obstacle is None]


def _obstacle(name: PictureName, run: LoadedRun, request: Request) -> str | None:
    """Why a picture makes no sense, with the remedy; None if it does."""
    shape = run.dataset.event_shape
    if name == "inpainting" and not (is_image(shape) and min(shape[1:]) >= 2):
        return f"there is no part of a picture to mask in data of shape {shape}; choose another picture, like latent"
    if name == "chain" and not run.sampler.num_steps:
        return "the run has no chain (sampler.num_steps=0); choose reconstructions"
    if name == "interpolation" and len(run.dataset.test) < 2:
        return "there is one test datum only; choose traversal"
    if name != "latent" and not is_image(shape) and not request.arrays:
        return f"data of shape {shape} are no images (1 or 3, H, W); set arrays=true for the numbers alone"
    return None
