"""A command in a process of its own, which saves what it has when a signal asks for it: whoever waits lets it."""

import os
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

from metvae_cli.training.ranks import PASSES_ON


def status_of(words: Sequence[str]) -> int:
    """Run a command without its output; its exit status, or 128 + the signal that asked us to stop or ended it.

    Ctrl-C reaches the command by itself, since it has our terminal. SIGTERM may be for us alone and is passed on; where
    it came to both, as from `timeout`, the command must not take it for a second one, at which it ends without saving.
    """
    child: subprocess.Popen[bytes] | None = None
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        asked.append(number)
        if child is not None and number == signal.SIGTERM:
            child.send_signal(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ, PASSES_ON: "1"})
        for number in asked:  # before there was a child
            child.send_signal(number)
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + asked[0] if asked else abs(status) + 128 * (status < 0)
