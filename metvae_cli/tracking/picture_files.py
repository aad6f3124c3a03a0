"""Pictures as PNG files and in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from metvae_cli.errors import naming
from metvae_cli.torchvision_import import import_torchvision
from metvae_cli.tracking.tensorboard import Board


def write_pictures(
    folder: Path, board: Board, images: Mapping[str, Tensor], step: int = 0, prefix: str = "images/"
) -> list[Path]:
    """Write each image (3, H, W) in [0, 1] as `folder/<name>.png` and as the image `<prefix><name>` at a step.

    Returns the files, in order.
    """
    written = []
    for name, image in images.items():
        path = folder / f"{name}.png"
        with naming(path):
            import_torchvision().utils.save_image(image, path)
        board.image(step, f"{prefix}{name}", image)
        written.append(path)
    return written
