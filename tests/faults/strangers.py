"""What somebody else put into the working directory: files of configurations, and a module that leaves a marker."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.runs import files, metvae

GLOBAL = "# @package _global_\n"


@contextmanager
def directory(tmp_path: Path) -> Iterator[Path]:
    """Inside, a working directory with a file that leaves a marker where it is run, importable too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.syspath_prepend(tmp_path / "modules")
        patch.setattr(sys, "dont_write_bytecode", True)
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "evil.py").write_text(
            f"from pathlib import Path\n\nPath({str(tmp_path / 'marker')!r}).touch()\n\n\n"
            "def log_prob(z):\n    return -(z**2).sum(-1)\n"
        )
        yield tmp_path
        sys.modules.pop("evil", None)


def place(text: str, name: str = "experiment/hostile") -> None:
    path = Path("menu", f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a command that refuses what it is given, runs nothing and leaves nothing."""
    capsys.readouterr()
    before = files(Path())
    status = metvae(*words)
    captured = capsys.readouterr()
    assert not Path("marker").exists()
    assert status == 2, captured.err
    assert captured.out == ""
    assert files(Path()) == before
    (line,) = captured.err.splitlines()
    assert line.startswith("metvae: error: ")
    return line


def marker() -> str:
    return str(Path("marker").absolute())


def evil() -> str:
    return f"{Path('modules', 'evil.py').absolute()}:log_prob"
