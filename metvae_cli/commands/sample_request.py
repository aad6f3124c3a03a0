"""What `metvae sample` is asked for: the keys of configs/sample.yaml."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from metvae_cli.evaluation.inpainting import MaskName
from metvae_cli.training.device import DeviceName

PictureName = Literal[
    "prior", "reconstructions", "chain", "interpolation", "traversal", "neighbours", "inpainting", "latent"
]

_MOST_IMAGES = 20_000


@dataclass(frozen=True)
class Request:
    """What to draw.

    Args:
        run: directory of a run
        checkpoint: best or last
        pictures: which; null is all that make sense for the run
        count: samples in the picture of the prior
        data: rows of each other picture: test data, or samples beside their neighbours
        steps: images along each line of interpolation and traversal
        neighbours: nearest training data beside each sample
        train_data: training data to search for neighbours, evenly over the split; null is all
        mask: what is masked for in-painting
        mask_share: share of the image that is masked
        sweeps: of block Gibbs sampling
        frames: states of it to show, at most as many as sweeps
        arrays: write the numbers of each picture too
        seed: of all draws; each picture has a random stream of its own
        device: auto, cpu, cuda, cuda:N or mps
        plugins: modules that the run was trained with

    Raises:
        ValueError: a number is out of range
    """

    run: str | None
    checkpoint: str = "best"
    pictures: Sequence[PictureName] | None = None
    count: int = 64
    data: int = 8
    steps: int = 11
    neighbours: int = 4
    train_data: int | None = 10_000
    mask: MaskName = "bottom"
    mask_share: float = 0.5
    sweeps: int = 30
    frames: int = 10
    arrays: bool = False
    seed: int = 0
    device: DeviceName = "auto"
    plugins: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.run:
            raise ValueError("run=null: name the directory of a run, like run=outputs/train/RUN")
        least = {
            "count": 1,
            "data": 1,
            "steps": 2,
            "neighbours": 1,
            "train_data": 1,
            "sweeps": 1,
            "frames": 1,
            "seed": 0,
        }
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ValueError(f"{name}={value}: must be at least {smallest}")
        for name, largest in (
            ("count", 10_000),
            ("data", 1000),
            ("steps", 1000),
            ("neighbours", 1000),
            ("frames", 1000),
        ):
            if getattr(self, name) > largest:
                raise ValueError(f"{name}={getattr(self, name)}: must be at most {largest}, for one picture")
        for name in ("steps", "neighbours", "frames"):
            images = self.data * getattr(self, name)
            if images > _MOST_IMAGES:
                raise ValueError(
                    f"data={self.data} {name}={getattr(self, name)}: are {images} images, and one picture holds "
                    f"{_MOST_IMAGES}; lower one of them"
                )
        if not 0 < self.mask_share < 1:
            raise ValueError(f"mask_share={self.mask_share}: must lie between 0 and 1")
        if self.checkpoint not in ("best", "last"):
            raise ValueError(f"checkpoint={self.checkpoint}: expected best or last")
        if self.pictures is not None and not self.pictures:
            raise ValueError("pictures=[]: name at least one, like pictures=[prior]; pictures=null draws all")
