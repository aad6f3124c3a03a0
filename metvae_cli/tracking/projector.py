"""Points for TensorBoard's projector: positions, labels and small images, in files beside the events of the run.

The files stand at fixed places and are replaced when they are written again, so that a run has one embedding however
often it goes on. (`SummaryWriter.add_embedding` makes a folder for each step and forgets the earlier ones on a resume.)
"""

import math
from pathlib import Path

import numpy as np
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector import projector_config_pb2
from torch import Tensor
from torch.nn import functional

CONFIG = "projector_config.pbtxt"
FOLDER = "projector"
_LARGEST = 8192  # pixels on a side of the sprite that TensorBoard takes
_LARGE_ENOUGH = 64  # pixels on a side of one image in it


def write_projector(
    folder: Path, name: str, positions: Tensor, labels: Tensor | None = None, images: Tensor | None = None
) -> None:
    """Write what the projector shows.

    Args:
        folder: directory of the run
        name: of the points
        positions: (N, D), D at least 1
        labels: (N,) classes, or None
        images: (N, 1 or 3, H, W) in [0, 1], or None
    """
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    config = projector_config_pb2.ProjectorConfig()  # pyright: ignore[reportAttributeAccessIssue]
    embedding = config.embeddings.add(tensor_name=name, tensor_path=f"{FOLDER}/tensors.tsv")
    np.savetxt(place / "tensors.tsv", positions.double().cpu().numpy(), fmt="%.6g", delimiter="\t")
    embedding.metadata_path = f"{FOLDER}/metadata.tsv"
    (place / "metadata.tsv").write_text(_metadata(len(positions), labels))
    if images is not None:
        sprite, (height, width) = make_sprite(images)
        Image.fromarray(sprite).save(place / "sprite.png")
        embedding.sprite.image_path = f"{FOLDER}/sprite.png"
        embedding.sprite.single_image_dim.extend([width, height])
    # Last: TensorBoard looks for this file.
    (folder / CONFIG).write_text(text_format.MessageToString(config))


def make_sprite(images: Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    """Images (N, 1 or 3, H, W) in one, row after row, as many rows as columns: bytes (H', W', 3), and the size of one.

    They are made smaller where the whole would be larger than TensorBoard takes, or one larger than anyone can see.
    """
    side = math.ceil(math.sqrt(len(images)))
    height, width = images.shape[-2:]
    shrink = min(1.0, min(_LARGEST // side, _LARGE_ENOUGH) / max(height, width))
    size = (max(1, int(height * shrink)), max(1, int(width * shrink)))
    small = images.float().clamp(0, 1).cpu()
    if shrink < 1:
        small = functional.interpolate(small, size, mode="area")
    tiles = torch.zeros(side * side, 3, *size)
    tiles[: len(small)] = small
    whole = tiles.unflatten(0, (side, side)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return (whole * 255).round().byte().numpy(), size


def _metadata(count: int, labels: Tensor | None) -> str:
    """A line per point: its class, where there are classes, and its number. Of several columns TensorBoard wants the
    names in the first line, of one it wants none.
    """
    if labels is None:
        return "".join(f"{number}\n" for number in range(count))
    rows = [f"{label}\t{number}\n" for number, label in enumerate(labels.tolist())]
    return "class\tdatum\n" + "".join(rows)
