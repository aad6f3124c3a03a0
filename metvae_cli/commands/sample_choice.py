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
    kept: dict[PictureName, None] = {}  # each once, in order
    missing: dict[str, list[str]] = {}
    for name in names:
        obstacle = _obstacle(name, run, request)
        if obstacle is None:
            kept[name] = None
            continue
        reason, remedy = obstacle
        if request.pictures is not None:
            raise ConfigError(f"pictures=[{name}]: {reason}; {remedy}")
        missing.setdefault(reason, []).append(name)
    if missing:
        log.warning("note: left out: %s", "; ".join(f"{', '.join(left)} ({why})" for why, left in missing.items()))
    return list(kept)


def _obstacle(name: PictureName, run: LoadedRun, request: Request) -> tuple[str, str] | None:
    """Why a picture makes no sense, and the remedy; None if it does."""
    shape = run.dataset.event_shape
    if name == "chain" and not run.sampler.num_steps:
        return "the run has no chain, sampler.num_steps=0", "choose reconstructions"
    if name == "interpolation" and len(run.dataset.test) < 2:
        return "there is one test datum only", "choose traversal"
    if name == "latent" or (is_image(shape) and min(shape[1:]) >= 2):
        return None
    if name == "inpainting":
        return f"data of shape {shape} have no part of a picture to mask", "choose another, like latent"
    if not is_image(shape) and not request.arrays:
        return f"data of shape {shape} are no images, which are (1 or 3, H, W)", "set arrays=true for the numbers alone"
    return None
