"""The TensorBoard writer and the tracker: what a resume drops, what is no number, and whose random stream is used."""

import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.tensorboard import Board, flatten
from metvae_cli.tracking.tracker import RunTracker


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_a_resume_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for step in (1, 2, 3):
        board.scalars(step, {"a": float(step)})
    board.close()
    board = Board(tmp_path, resume_from=2)
    board.scalars(3, {"a": 30.0})
    board.close()
    found = [(event.step, event.value) for event in events(tmp_path).Scalars("a")]
    assert found == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_histogram_is_of_the_finite_values(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.histogram(1, "some", torch.tensor([1.0, math.nan, 2.0, -math.inf]))
    board.histogram(1, "none", torch.tensor([math.nan]))
    board.close()
    found = events(tmp_path)
    assert found.Tags()["histograms"] == ["some"]
    assert found.Histograms("some")[0].histogram_value.num == 2


def test_hyperparameters_make_no_second_run(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.hyperparameters({"seed": 1, "encoder": {"hidden": [3], "dim": None}}, {"final/loss": 0.5}, 7)
    board.close()
    assert len(list(tmp_path.iterdir())) == 1
    assert [event.step for event in events(tmp_path).Scalars("final/loss")] == [7]


def test_nested_keys_become_dotted_ones() -> None:
    config = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None, "f": True, "g": "x", "h": 0.5}
    assert flatten(config) == {"a.b.c": 1, "a.d": "[1, 2]", "e": "None", "f": True, "g": "x", "h": 0.5}


@pytest.mark.parametrize("prefix", ["", "final/"])
def test_pictures_leave_the_random_stream_of_training(tmp_path: Path, prefix: str) -> None:
    board = Board(tmp_path)
    with RunTracker(board, MetricsFile(tmp_path / "metrics.csv"), lambda: {"noise": torch.rand(3, 4, 4)}, 3) as tracker:
        before = torch.get_rng_state()
        tracker.pictures(5, prefix)
        tracker.pictures(6, prefix)
        assert torch.equal(torch.get_rng_state(), before)
    board.close()
    first, second = events(tmp_path).Images(f"{prefix}noise")
    assert (first.step, second.step) == (5, 6)
    assert first.encoded_image_string == second.encoded_image_string


def test_rows_and_weights_go_to_their_places(tmp_path: Path) -> None:
    board, metrics = Board(tmp_path), MetricsFile(tmp_path / "metrics.csv")
    with RunTracker(board, metrics, dict, 3) as tracker:
        tracker.row({"epoch": 1.0, "val/bound": -3.0})
        tracker.progress(0, 1, 4)
        tracker.scalars(2, {"val/bound": -3.0})
        tracker.log_weights(2, torch.tensor([[1.0, 5.0], [3.0, 9.0]]))
        assert tracker.position() == metrics.position() > 0
    board.close()
    found = events(tmp_path)
    assert found.Scalars("val/bound")[0].value == -3.0
    histogram = found.Histograms("val/log_weights")[0].histogram_value
    assert (histogram.min, histogram.max) == (-2.0, 2.0)


def test_values_beyond_the_bins_of_tensorboard_are_no_failure(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.histogram(1, "weights", torch.tensor([-1e30, -1e25, 3e20]))
    board.close()
    assert events(tmp_path).Histograms("weights")[0].histogram_value.num == 3
