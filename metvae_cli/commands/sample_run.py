"""What `metvae sample` does: every picture as soon as it is made, and its arrays if they are asked for."""

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from metvae_cli.build import LoadedRun
from metvae_cli.commands.failure import told
from metvae_cli.commands.own_directory import discard_events
from metvae_cli.commands.sample_pictures import Picture, draw
from metvae_cli.commands.sample_request import PictureName, Request
from metvae_cli.errors import Interrupted, RunError
from metvae_cli.tracking.picture_files import write_pictures
from metvae_cli.tracking.run_directory import RunDirectory, stop_file, write_status
from metvae_cli.tracking.tensorboard import Board
from metvae_cli.tracking.whole_file import whole
from metvae_cli.training.interruption import Interruption


def sample(run: LoadedRun, request: Request, names: Sequence[PictureName], folder: Path) -> None:
    """Write the pictures into `folder`, each as soon as it is made, and say where they are.

    Raises:
        ConfigError: the directory cannot be had
        Interrupted: a signal came; the pictures made by then are whole
        RunError: the disk is full, or memory does not suffice
    """
    with RunDirectory(folder), Interruption(stop_file(folder)) as interruption:
        write_status(folder, "running")
        discard_events(folder)
        try:
            with closing(Board(folder)) as board, interruption.at_once():
                for name in names:
                    interruption.check()
                    for path in _write(folder, board, name, draw(name, run, request), arrays=request.arrays):
                        print(path, flush=True)
        except (Interrupted, KeyboardInterrupt):
            write_status(folder, "interrupted", "the pictures made by then are whole")
            raise
        except Exception as error:
            reason = told(error, "sample", folder)
            with suppress(OSError):
                write_status(folder, "failed", reason or f"{type(error).__name__}: {error}")
            if reason:
                raise RunError(reason) from error
            raise
        write_status(folder, "finished")


def _write(folder: Path, board: Board, name: str, picture: Picture, *, arrays: bool) -> list[Path]:
    written = [] if picture.image is None else write_pictures(folder, board, {name: picture.image()})
    if arrays:
        path = folder / f"{name}.npz"
        plain_arrays: dict[str, Any] = {key: value.cpu().numpy() for key, value in picture.arrays.items()}
        with whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **plain_arrays)
        written.append(path)
    return written
