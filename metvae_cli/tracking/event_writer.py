"""A new file of TensorBoard events, written by whoever adds them.

TensorBoard's own writer has a thread for it: that the disk is full would be said there, to nobody, and a run would
learn of it later, by another name.
"""

import os
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from metvae_cli.errors import naming
from metvae_cli.tracking.event_files import PREFIX, record_of

_FLUSH_EVERY = 20.0  # seconds


class EventWriter:
    """Appends events to a file of its own in a directory, which is made if need be.

    Args:
        folder: the directory
        purge_step: for readers that have seen events of this step and later ones: they are no more

    Raises OSError, with the file's name, here and in all methods: it cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        made = f"{PREFIX}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self.path = folder / made
        self._file = self.path.open("xb")
        self._flushed_at = 0.0
        try:
            self._add(Event(file_version="brain.Event:2"))
            if purge_step is not None:
                self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        except OSError:
            with suppress(OSError):  # closing fails as writing does, and closes all the same
                self._file.close()
            raise

    def add(self, summary: Summary, step: int = 0) -> None:
        """One event."""
        self._add(Event(step=step, summary=summary))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        with naming(self.path):
            self._file.write(record_of(event.SerializeToString()))
        if time.monotonic() - self._flushed_at > _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        self._flushed_at = time.monotonic()
        with naming(self.path):
            self._file.flush()

    def close(self) -> None:
        """Write what is waiting, and close."""
        with naming(self.path):
            self._file.close()
