"""A profile of a few iterations: what it leaves, and that training does not notice."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from metvae_cli.training.profiling import ACTIVE, TABLE, TRACE, WAIT, WARMUP, profiled
from tests.endings import assert_same_end
from tests.runs import train
from tests.tracking.boards import steps_by_tag, text_of

WHOLE = WAIT + WARMUP + ACTIVE


def work(folder: Path, iterations: int, *, wanted: bool = True) -> list[tuple[str, int]]:
    shown: list[tuple[str, int]] = []
    with profiled(wanted, folder, lambda table, seen: shown.append((table, seen))) as each_iteration:
        for _ in range(iterations):
            torch.mm(torch.ones(30, 30), torch.ones(30, 30))
            each_iteration()
    return shown


@pytest.mark.parametrize("iterations", [WHOLE, WHOLE + 20])
def test_a_profile_is_a_trace_and_a_table(tmp_path: Path, iterations: int) -> None:
    ((table, seen),) = work(tmp_path, iterations)
    assert seen == WHOLE
    assert "aten::mm" in table
    assert (tmp_path / TABLE).read_text() == table
    with gzip.open(tmp_path / TRACE) as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert names.count("aten::mm") == ACTIVE


def test_a_run_that_ends_while_it_is_watched_has_a_shorter_one(tmp_path: Path) -> None:
    ((table, seen),) = work(tmp_path, WAIT + WARMUP + 2)
    assert "aten::mm" in table
    assert seen == WAIT + WARMUP + 2


@pytest.mark.parametrize("iterations", [0, 1, WAIT, WAIT + 1])
def test_a_run_that_is_too_short_has_none(tmp_path: Path, caplog: pytest.LogCaptureFixture, iterations: int) -> None:
    assert work(tmp_path, iterations) == []
    assert list(tmp_path.iterdir()) == []
    assert f"it takes {WAIT + WARMUP + 1} iterations" in caplog.text


def test_without_one_nothing_is_left(tmp_path: Path) -> None:
    assert work(tmp_path, WHOLE, wanted=False) == []
    assert list(tmp_path.iterdir()) == []


def test_a_failure_passes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), profiled(True, tmp_path, lambda table, seen: None):
        raise ZeroDivisionError


def test_training_ends_bitwise_where_it_ends_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("trainer.max_epochs=1", "trainer.test_samples=1")
    assert train("hydra.run.dir=plain", *words) == 0
    assert train("hydra.run.dir=profiled", "trainer.profile=true", *words) == 0
    assert_same_end(tmp_path / "profiled", tmp_path / "plain")
    assert not (tmp_path / "plain" / TABLE).exists()
    assert "aten::addmm" in (tmp_path / "profiled" / TABLE).read_text()
    assert "aten::addmm" in text_of(tmp_path / "profiled", "profile")
    assert steps_by_tag(tmp_path / "profiled")["profile/text_summary"] == [WHOLE]
    assert not steps_by_tag(tmp_path / "plain").keys() & {"profile/text_summary"}
