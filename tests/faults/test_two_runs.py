"""Two runs that want one directory: one gets it, the other is told who has it, and a dead owner is no hindrance."""

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metvae_cli.tracking import run_lock
from metvae_cli.tracking.run_directory import RunDirectory
from metvae_cli.tracking.run_lock import claim, owner_is_gone, release
from tests.endings import status
from tests.runs import TINY, environment, files, metvae, train

# Claims the directory of each line at the instant that it names, says whether it got it, and holds it to the next line.
# guarded: as it is; unguarded: without the turn-taking. Both look at a lock for so long that the other does too.
CONTENDER = """\
import sys, time
from contextlib import nullcontext
from pathlib import Path
from metvae_cli.tracking import run_lock
looks = run_lock.owner_is_gone
def looks_long(lock):
    found = looks(lock)
    time.sleep(float(sys.argv[2]))
    return found
run_lock.owner_is_gone = looks_long
if sys.argv[1] == "unguarded":
    run_lock.one_at_a_time = nullcontext
for line in sys.stdin:
    folder, start = line.split()
    while time.monotonic() < float(start):
        pass
    lock = Path(folder, ".lock")
    has = run_lock.claim(lock)
    print(has, flush=True)
    sys.stdin.readline()
    if has:
        run_lock.release(lock)
"""


@contextmanager
def contenders(*words: str) -> Iterator[list["subprocess.Popen[str]"]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", CONTENDER, *words]
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment()) for _ in range(2)]
    try:
        yield both
    finally:
        for process in both:
            process.communicate()


def tell(both: list["subprocess.Popen[str]"], line: str) -> None:
    for process in both:
        assert process.stdin is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()


def winners(both: list["subprocess.Popen[str]"], folder: Path) -> int:
    """How many get a directory that both want at once."""
    tell(both, f"{folder} {time.monotonic() + 0.01}")
    answers = [process.stdout.readline().strip() for process in both if process.stdout is not None]
    tell(both, "next")
    assert set(answers) <= {"True", "False"}
    return answers.count("True")


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def rounds(folder: Path, *words: str, count: int = 20) -> list[int]:
    """Winners of each round; before every other one a dead process has left its lock."""
    found, gone = [], dead_process()
    with contenders(*words) as both:
        for number in range(count):
            place = folder / str(number)
            place.mkdir()
            if number % 2:
                (place / ".lock").write_text(f"{socket.gethostname()} {gone}")
            found.append(winners(both, place))
    return found


def test_of_two_at_once_one_gets_the_directory(tmp_path: Path) -> None:
    assert rounds(tmp_path, "guarded", "0") == [1] * 20


def test_two_that_find_a_dead_owner_do_not_remove_each_others_locks(tmp_path: Path) -> None:
    (tmp_path / "right").mkdir()
    assert rounds(tmp_path / "right", "guarded", "0.03", count=8) == [1] * 8
    assert max(rounds(tmp_path, "unguarded", "0.1", count=8)) == 2  # the judge sees it where nobody takes turns


@pytest.fixture
def other() -> Iterator["subprocess.Popen[bytes]"]:
    """A living process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def lock_of(folder: Path, *words: object) -> Path:
    path = folder / ".lock"
    path.write_text(" ".join(str(word) for word in words))
    return path


def test_a_process_id_that_lives_again_is_another_process(tmp_path: Path, other: "subprocess.Popen[bytes]") -> None:
    if not (started := run_lock._start_of(other.pid)):
        pytest.skip("this system does not tell when a process was started")
    host = socket.gethostname()
    assert not owner_is_gone(lock_of(tmp_path, host, other.pid, started))
    assert not claim(tmp_path / ".lock")
    assert owner_is_gone(lock_of(tmp_path, host, other.pid, int(started) - 1))
    assert claim(tmp_path / ".lock")
    assert not owner_is_gone(lock_of(tmp_path, host, other.pid))  # as an earlier version wrote it
    assert not owner_is_gone(lock_of(tmp_path, "elsewhere", other.pid, int(started) - 1))


def test_a_dead_process_that_its_parent_has_not_waited_for_is_dead(
    tmp_path: Path, other: "subprocess.Popen[bytes]"
) -> None:
    if not run_lock._start_of(other.pid):
        pytest.skip("this system does not tell of a process whether it has ended")
    lock = lock_of(tmp_path, socket.gethostname(), other.pid)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not waited for
    assert owner_is_gone(lock)


@pytest.mark.parametrize("text", ["", "\n", "host", "host pid", "a b c d e", "\0\0\0", f"{socket.gethostname()} -1"])
def test_a_lock_that_a_crash_has_left_unwritten_is_no_hindrance(tmp_path: Path, text: str) -> None:
    (tmp_path / ".lock").write_text(text)
    with RunDirectory(tmp_path) as run:
        assert run.holder() == ""  # this process, and no other


def test_a_lock_is_never_seen_unwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, link, seen = tmp_path / ".lock", os.link, []

    def watched(source: Path, target: Path) -> None:
        seen.append((lock.exists(), Path(source).read_text()))
        link(source, target)

    monkeypatch.setattr(os, "link", watched)
    assert claim(lock)
    assert seen == [(False, lock.read_text())]
    assert seen[0][1].startswith(f"{socket.gethostname()} {os.getpid()}")
    assert os.listdir(tmp_path) == [".lock"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_has_locks_too(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with RunDirectory(tmp_path):
        assert (tmp_path / ".lock").read_text().split()[1] == str(os.getpid())
    assert os.listdir(tmp_path) == []


def test_the_lock_of_another_is_not_removed(tmp_path: Path, other: "subprocess.Popen[bytes]") -> None:
    lock = tmp_path / ".lock"
    assert claim(lock)
    lock_of(tmp_path, socket.gethostname(), other.pid)
    release(lock)
    assert lock.exists()


def test_a_resume_of_a_run_that_is_running_is_refused(
    tmp_path: Path,
    other: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("hydra.run.dir=run", "trainer.max_epochs=1") == 0
    lock_of(tmp_path / "run", socket.gethostname(), other.pid, run_lock._start_of(other.pid))
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()}
    capsys.readouterr()
    assert metvae("train", "resume=run", "trainer.max_epochs=2") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"resume=run: is in use by another run ({socket.gethostname()} {other.pid})" in line
    assert before == {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()}
    other.kill()
    other.wait()
    assert metvae("train", "resume=run", "trainer.max_epochs=2") == 0


@pytest.mark.parametrize(
    ("words", "gone_on"), [((), "run"), (("trainer.replicas=2",), "run"), (("trainer.replicas=2",), "run/seed_1")]
)
def test_a_resume_that_claims_late_leaves_what_another_has_done_since(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    gone_on: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert metvae("train", *TINY, "trainer.max_epochs=2", *words, "hydra.run.dir=run") == 0
    claim, done = RunDirectory.__enter__, []

    def left() -> dict[Path, bytes]:
        found = [path for path in (tmp_path / gone_on).rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in found if path.name not in (".lock", "train.log")}

    def late(directory: RunDirectory) -> RunDirectory:
        if not done:
            done.append(0)
            assert metvae("train", f"resume={gone_on}", "trainer.max_epochs=3") == 0
            done.append(left())
        return claim(directory)

    monkeypatch.setattr(RunDirectory, "__enter__", late)
    capsys.readouterr()
    assert metvae("train", "resume=run", "trainer.max_epochs=4") == 2
    assert "another process has gone on with it" in capsys.readouterr().err.splitlines()[-1]
    assert left() == done[1]
    assert status(tmp_path / gone_on) == "finished"
