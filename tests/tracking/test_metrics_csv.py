"""metrics.csv: its columns, and where a resume cuts it."""

from pathlib import Path

import pytest

from metvae_cli.tracking.metrics_csv import MetricsFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def test_the_first_row_fixes_the_columns(path: Path) -> None:
    metrics = MetricsFile(path)
    assert (metrics.position(), metrics.last()) == (0, {})
    metrics.append({"epoch": 1.0, "val/bound": -2.5})
    metrics.append({"val/bound": -1.5, "other": 3.0})
    metrics.append({"epoch": 3.0})
    assert path.read_text() == "epoch,val/bound\n1.0,-2.5\n,-1.5\n3.0,\n"
    assert metrics.last() == {"epoch": 3.0}


def test_values_come_back_as_they_were(path: Path) -> None:
    metrics = MetricsFile(path)
    metrics.append({"a": 0.1 + 0.2, "b": 1e-300})
    assert metrics.last() == {"a": 0.1 + 0.2, "b": 1e-300}


def test_a_resume_cuts_what_came_after_its_checkpoint(path: Path) -> None:
    metrics = MetricsFile(path)
    metrics.append({"epoch": 1.0})
    position = metrics.position()
    metrics.append({"epoch": 2.0})
    path.write_text(path.read_text() + "3.")  # half a row, of a process that was killed
    resumed = MetricsFile(path, position)
    resumed.append({"epoch": 2.5})
    assert path.read_text() == "epoch\n1.0\n2.5\n"


def test_a_resume_from_before_the_first_row_starts_anew(path: Path) -> None:
    MetricsFile(path).append({"epoch": 1.0})
    resumed = MetricsFile(path, 0)
    resumed.append({"other": 2.0})
    assert path.read_text() == "other\n2.0\n"


def test_a_position_beyond_the_end_pads_nothing(path: Path) -> None:
    MetricsFile(path).append({"epoch": 1.0})
    assert MetricsFile(path, 1000).position() == len("epoch\n1.0\n")
