"""`metvae sample run=DIR`: pictures of a trained model as PNG files, in TensorBoard and, if asked for, as arrays."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from metvae_cli.build import LoadedRun, load_run, plain
from metvae_cli.commands.hydra_entry import is_sweep, named_plugins, output_folder, store_words
from metvae_cli.commands.own_directory import discard_events, refuse_directory, refuse_named_directory
from metvae_cli.commands.sample_choice import chosen
from metvae_cli.commands.sample_pictures import Picture, draw
from metvae_cli.commands.sample_request import PictureName, Request
from metvae_cli.commands.sweep import run_or_sweep
from metvae_cli.errors import ConfigError
from metvae_cli.paths import discard_run
from metvae_cli.schema import call
from metvae_cli.tracking.picture_files import write_pictures
from metvae_cli.tracking.run_directory import write_status
from metvae_cli.tracking.tensorboard import Board


def main(argv: list[str]) -> int:
    """Draw; returns the exit status."""
    refuse_named_directory("sample", argv)
    return run_or_sweep("sample", argv, task)


def task(config: DictConfig) -> None:
    """One job of Hydra's."""
    folder = output_folder()
    refuse_directory("sample", folder)
    try:
        request = call(Request, plain(config), "")
        run = load_run(Path(str(request.run)), request.checkpoint, request.device, named_plugins())
        names = chosen(run, request)
    except ConfigError:
        if not is_sweep():
            discard_run(folder)
        raise
    store_words(config, folder)
    sample(run, request, names, folder)


def sample(run: LoadedRun, request: Request, names: Sequence[PictureName], folder: Path) -> None:
    """Write the pictures into `folder`, each as soon as it is made, and say where they are."""
    write_status(folder, "running")
    discard_events(folder)
    try:
        with closing(Board(folder)) as board:
            for name in names:
                for path in _write(folder, board, name, draw(name, run, request), arrays=request.arrays):
                    print(path, flush=True)
    except KeyboardInterrupt:
        write_status(folder, "interrupted", "the pictures made by then are whole")
        raise
    except Exception as error:
        write_status(folder, "failed", f"{type(error).__name__}: {error}")
        raise
    write_status(folder, "finished")


def _write(folder: Path, board: Board, name: str, picture: Picture, *, arrays: bool) -> list[Path]:
    written = [] if picture.image is None else write_pictures(folder, board, {name: picture.image()})
    if arrays:
        path = folder / f"{name}.npz"
        plain_arrays: dict[str, Any] = {key: value.cpu().numpy() for key, value in picture.arrays.items()}
        np.savez_compressed(path, **plain_arrays)
        written.append(path)
    return written
