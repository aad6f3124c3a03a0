"""The TensorBoard writer and the tracker: what a resume drops, what is no number, and whose random stream is used."""

import io
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata

from metvae_cli.tracking.metrics_csv import MetricsFile
from metvae_cli.tracking.tensorboard import Board, flatten
from metvae_cli.tracking.tracker import RunTracker
from tests.tracking.boards import raw_events, steps_by_tag


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
    board.begin_session({"seed": 1, "sampler": "hmc"}, ("loss", "seconds"), ["sampler"])
    board.end_session(7, {"loss": 0.5})
    board.close()
    assert len(list(tmp_path.iterdir())) == 1
    found = events(tmp_path)
    assert [event.step for event in found.Scalars("final/loss")] == [7]
    experiment = hparams_metadata.parse_experiment_plugin_data(
        found.summary_metadata["_hparams_/experiment"].plugin_data.content
    )
    assert [info.name for info in experiment.hparam_infos] == ["seed", "sampler"]
    assert [info.differs for info in experiment.hparam_infos] == [False, True]
    assert [info.name.tag for info in experiment.metric_infos] == ["final/loss", "final/seconds"]
    assert "_hparams_/session_end_info" in found.summary_metadata


def test_a_session_that_did_not_end_has_a_start(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.begin_session({"seed": 1}, ("loss",), [])
    board.close()
    names = {name.removeprefix("_hparams_/") for name in events(tmp_path).summary_metadata}
    assert names == {"experiment", "session_start_info"}


def test_scalars_of_a_step_are_one_event(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.scalars(3, {f"train/{number}": float(number) for number in range(20)})
    board.close()
    assert [len(event.summary.value) for event in raw_events(tmp_path)] == [0, 20]
    assert [event.value for event in events(tmp_path).Scalars("train/7")] == [7.0]


def test_an_image_is_what_was_given(tmp_path: Path) -> None:
    board = Board(tmp_path)
    colours, grey = torch.rand(3, 5, 7), torch.rand(1, 5, 7)
    board.image(1, "colours", colours)
    board.image(1, "grey", grey)
    board.close()
    for name, image in (("colours", colours), ("grey", grey)):
        (shown,) = events(tmp_path).Images(name)
        assert (shown.width, shown.height) == (7, 5)
        pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(shown.encoded_image_string)))).float() / 255
        assert torch.allclose(pixels.reshape(5, 7, -1).permute(2, 0, 1), image, atol=0.5001 / 255)


@pytest.mark.parametrize(
    "values", [[0.0], [0.0, 0.0], [-3.0, 5.0, 5.0], [1e-30, 2e-30], [1e19, 1e19], [7.0, 7.0 + 1e-15]]
)
def test_a_histogram_counts_each_value_once(tmp_path: Path, values: list[float]) -> None:
    board = Board(tmp_path)
    board.histogram(1, "some", torch.tensor(values, dtype=torch.float64))
    board.close()
    found = events(tmp_path).Histograms("some")[0].histogram_value
    assert sum(found.bucket) == found.num == len(values)
    assert len(found.bucket) == len(found.bucket_limit)
    assert all(a < b for a, b in itertools.pairwise(found.bucket_limit))
    assert found.bucket_limit[0] <= min(values)
    assert max(values) <= found.bucket_limit[-1]
    assert found.sum == pytest.approx(sum(values))


def test_a_resume_writes_nothing_a_second_time(tmp_path: Path) -> None:
    """The process died after the events of iteration 2 and before a later checkpoint; that of 2 is gone on from."""
    board = Board(tmp_path)
    board.begin_session({"seed": 1}, ("loss",), [])
    board.text("config", "first")
    board.layout()
    for step in (1, 2, 3):
        board.scalars(step, {"train/a": step, "val/a": step})
        board.histogram(step, "val/h", torch.rand(4))
        board.image(step, "images/i", torch.rand(3, 4, 4))
    board.end_session(3, {"loss": 1.0})
    board.close()
    board = Board(tmp_path, resume_from=2)
    board.begin_session({"seed": 1}, ("loss",), [])
    board.text("config", "second")
    board.layout()
    board.scalars(2, {"val/a": 20.0, "val/b": 20.0})
    board.histogram(2, "val/h", torch.rand(4))
    board.image(2, "images/i", torch.rand(3, 4, 4))
    board.scalars(4, {"train/a": 4, "val/a": 4})
    board.end_session(4, {"loss": 2.0})
    board.close()
    assert steps_by_tag(tmp_path) == {
        "_hparams_/experiment": [0],
        "_hparams_/session_start_info": [0],
        "_hparams_/session_end_info": [0],
        "config/text_summary": [0],
        "custom_scalars__config__": [0],
        "train/a": [1, 2, 4],
        "val/a": [1, 2, 4],
        "val/b": [2],
        "val/h": [1, 2],
        "images/i": [1, 2],
        "final/loss": [4],
    }
    found = events(tmp_path)
    assert [event.value for event in found.Scalars("val/a")] == [1, 2, 4]
    assert found.Tensors("config/text_summary")[0].tensor_proto.string_val == [b"second"]


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
