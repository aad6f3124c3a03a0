"""TensorBoard: every event of a run goes into the run's own directory, by one writer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams


class Board:
    """A TensorBoard writer.

    Args:
        folder: the run's directory
        resume_from: iteration of the checkpoint gone on from; later events of the earlier part are dropped
    """

    def __init__(self, folder: Path, resume_from: int | None = None) -> None:
        purge = None if resume_from is None else resume_from + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=20)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar per name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def histogram(self, step: int, name: str, values: Tensor) -> None:
        """A histogram of the finite values; TensorBoard's bins end at 1e20."""
        finite = values[torch.isfinite(values)].clamp(-1e19, 1e19)
        if len(finite):
            self._writer.add_histogram(name, finite.cpu().numpy(), step)

    def image(self, step: int, name: str, image: Tensor) -> None:
        """An image (C, H, W) in [0, 1]."""
        self._writer.add_image(name, image, step)

    def text(self, name: str, text: str) -> None:
        """A text in Markdown."""
        self._writer.add_text(name, text, 0)

    def layout(self, names: Mapping[str, list[str]]) -> None:
        """Charts of the custom-scalars page: title -> the tags on one pair of axes."""
        self._writer.add_custom_scalars({"metvae": {title: ["Multiline", tags] for title, tags in names.items()}})

    def hyperparameters(self, config: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """The run's row in the HPARAMS table, written into this run (`add_hparams` would make a second one)."""
        flat = flatten(config)
        file_writer = self._writer._get_file_writer()
        for summary in hparams(flat, dict(metrics)):
            file_writer.add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write what is waiting."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested keys to dotted ones; what is no plain value becomes text."""
    flat: dict[str, str | int | float | bool] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat
