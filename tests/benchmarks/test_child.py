"""A command that a study waits for: what signals do to both."""

import signal
import sys
from pathlib import Path

import pytest

from benchmarks.child import status_of

# Asks whoever waits for it to stop; then it saves, longer than subprocess.run would let it.
CHILD = """
import os, pathlib, signal, sys, time
number, saved = int(sys.argv[1]), pathlib.Path(sys.argv[2])
came = []
signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
os.kill(os.getppid(), number)
time.sleep(0.5)
saved.write_text(str(came))
sys.exit(128 + number)
"""


@pytest.mark.parametrize(("number", "came"), [(signal.SIGINT, "[]"), (signal.SIGTERM, "[15]")])
def test_who_is_asked_to_stop_waits_for_what_is_saved(number: signal.Signals, came: str, tmp_path: Path) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    saved = tmp_path / "saved"
    assert status_of([sys.executable, "-c", CHILD, str(int(number)), str(saved)]) == 128 + number
    assert saved.read_text() == came
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_status_is_that_of_the_command_as_a_shell_gives_it() -> None:
    assert status_of([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert status_of([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 137


def test_asked_to_stop_as_the_command_ends_well() -> None:
    code = "import os, signal; signal.signal(15, signal.SIG_IGN); os.kill(os.getppid(), 15)"
    assert status_of([sys.executable, "-c", code]) == 143  # not 0, at which a study would begin its next run


def test_the_command_knows_that_a_signal_may_come_twice() -> None:
    code = "import sys; from metvae_cli.training.ranks import is_passed_on; sys.exit(is_passed_on() + 4)"
    assert status_of([sys.executable, "-c", code]) == 5
