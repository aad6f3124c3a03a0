"""The lock of a run's directory: which process it belongs to, and whether that process still lives.

A lock holds host, process id and, where the system tells, when the process was started: ids are used again. It comes
into being whole (a hard link), so that nobody reads half of it. That a lock is of a dead process is found, and the lock
replaced, by one process at a time: two that find it at once would each remove what the other has put there.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ENDED = "ended"


def claim(lock: Path) -> bool:
    """Put a lock of this process into place, unless another living process has one there: False. Raises OSError."""
    with one_at_a_time(lock.parent):
        if not owner_is_gone(lock):
            return False
        lock.unlink(missing_ok=True)
        try:
            _put(lock, _this_process())
        except FileExistsError:  # of another machine, where "one at a time" is not known of this one
            return False
    return True


def release(lock: Path) -> None:
    """Remove the lock of this process; one that cannot be removed is seen to be of a dead process later."""
    with suppress(OSError):
        if lock.read_text() == _this_process():
            lock.unlink()


def owner(lock: Path) -> str:
    """Host and process id that a lock names; empty where there is none, or none whole."""
    with suppress(OSError):
        return " ".join(lock.read_text(errors="replace").split()[:2])
    return ""


def owner_is_gone(lock: Path) -> bool:
    """Whether no other living process owns a lock. Of another machine, or where it cannot be read, one does."""
    try:
        host, number, *started = lock.read_text(errors="replace").split()
        pid = int(number)
    except PermissionError:
        return False
    except (ValueError, FileNotFoundError):
        return True
    if host != socket.gethostname():
        return False
    if pid == os.getpid() or not _lives(pid):
        return True
    found = _start_of(pid)
    return found == _ENDED or (bool(started and found) and [found] != started)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # it is somebody else's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0


def _put(lock: Path, text: str) -> None:
    """Make the lock, whole. Raises FileExistsError where there is one."""
    temporary = lock.with_name(f"{lock.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        try:
            os.link(temporary, lock)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            with lock.open("x") as file:
                file.write(text)
    finally:
        temporary.unlink(missing_ok=True)


def _this_process() -> str:
    return " ".join([socket.gethostname(), str(os.getpid()), _start_of(os.getpid())]).strip()


def _start_of(pid: int) -> str:
    """When a process was started, as Linux says it; _ENDED of one that its parent has yet to hear of; else empty."""
    try:
        # The name, in parentheses, may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return _ENDED if state in "ZX" else fields[18]
    except (OSError, ValueError, IndexError):
        return ""


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Inside, no other process of this machine is; a file system that has no such locks does without."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
