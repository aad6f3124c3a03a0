"""A run that was stopped and resumed ends, bit by bit, where the uninterrupted run ends."""

import csv
from pathlib import Path

import pytest
import torch

from metvae_cli.training.checkpoint import load_checkpoint
from tests.training.training import BATCHES, differences, interrupt, make, notes, whole

EPOCHS = "trainer.max_epochs=3"
CLASSIC = ("sampler=hmc", "objective=metvae")  # decisions that are drawn
METHODS = {
    "hmc": ("objective=metvae", EPOCHS, "sampler=hmc"),
    "langevin": (EPOCHS, "experiment=digits_amcvae", "sampler.num_steps=2", "trainer.kl_warmup_epochs=2"),
    "running": (
        *CLASSIC,
        EPOCHS,
        "objective.baseline=running",
        "objective.num_samples=1",
        "trainer.inference_iterations=1",
    ),
    "enumerated": (
        *CLASSIC,
        EPOCHS,
        "sampler.decisions=enumerated",
        "sampler.reverse=exact",
        "sampler.cloned_decoder=true",
    ),
    "stopped": (EPOCHS, "sampler.decisions=stopped", "sampler.schedule=learned", "sampler.cloned_decoder=true"),
    "checkpointed": (EPOCHS, "experiment=digits_uha", "sampler.num_steps=2", "trainer.checkpoint_chain=true"),
    "sgd": (
        "objective=metvae",
        EPOCHS,
        "sampler=random_walk",
        "optimizer=sgd",
        "optimizer.schedule=cosine",
        "dataset.binarization=static",
    ),
}


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without the column that the clock decides."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) if name == "checkpointed" else name for name in METHODS]
)
@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([("iteration", 1)], marks=pytest.mark.slow),
        pytest.param([("iteration", 7)], marks=pytest.mark.slow),
        pytest.param([("iteration", BATCHES)], marks=pytest.mark.slow),
        [("validation", 2 * BATCHES)],
        [("iteration", 3), ("iteration", 6), ("validation", 3 * BATCHES)],
    ],
    ids=str,
)
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, method: str, stops: list[tuple[str, int]]
) -> None:
    words = METHODS[method]
    straight = make(tmp_path / "straight", *words)
    straight.fit()
    folder = tmp_path / "interrupted"
    for index, (kind, number) in enumerate(stops):
        interrupt(folder, kind, number, *words, resume=index > 0)
    resumed = make(folder, *words, resume=True)
    assert resumed.fit() == "max_epochs"
    assert differences(whole(straight), whole(resumed)) == []
    assert len(rows(folder)) == 3
    assert rows(folder) == rows(tmp_path / "straight")
    for name in ("last.pt", "best.pt"):
        one, other = (load_checkpoint(tmp_path / run / name) for run in ("straight", "interrupted"))
        assert differences(one["model"], other["model"]) == []
        assert differences(one["optimizer"], other["optimizer"]) == []


def test_a_run_stopped_by_a_limit_goes_on_with_a_higher_one(tmp_path: Path) -> None:
    straight = make(tmp_path / "straight", EPOCHS)
    straight.fit()
    folder = tmp_path / "limited"
    limited = make(folder, EPOCHS, "trainer.max_iterations=7")
    assert limited.fit() == "max_iterations"
    assert limited.state.iteration == 7
    assert rows(folder)[-1]["epoch"] == "1.4"
    resumed = make(folder, EPOCHS, resume=True)
    resumed.fit()
    one, other = whole(straight), whole(resumed)
    assert differences(one["model"], other["model"]) + differences(one["optimizer"], other["optimizer"]) == []
    assert [row for row in rows(folder) if row["epoch"] != "1.4"] == rows(tmp_path / "straight")


def test_what_a_killed_run_wrote_after_its_checkpoint_is_written_once(tmp_path: Path) -> None:
    trainer = make(tmp_path, EPOCHS)
    save = trainer.save

    def save_until_killed(name: str) -> None:
        if (name, trainer.state.iteration) == ("last.pt", 2 * BATCHES):
            raise SystemExit(137)
        save(name)

    trainer.save = save_until_killed
    with pytest.raises(SystemExit):
        trainer.fit()
    assert len(rows(tmp_path)) == 2
    resumed = make(tmp_path, EPOCHS, resume=True)
    assert resumed.state.iteration == BATCHES
    resumed.fit()
    assert [row["epoch"] for row in rows(tmp_path)] == ["1.0", "2.0", "3.0"]


def test_a_run_killed_before_its_first_epoch_can_be_resumed(tmp_path: Path) -> None:
    def killed(kind: str, number: int) -> None:
        raise SystemExit(137)

    with pytest.raises(SystemExit):
        make(tmp_path, EPOCHS, at=killed).fit()
    resumed = make(tmp_path, EPOCHS, resume=True)
    assert resumed.state.iteration == 0
    resumed.fit()
    straight = make(tmp_path / "straight", EPOCHS)
    straight.fit()
    assert differences(whole(straight), whole(resumed)) == []


def test_adapted_step_sizes_are_in_the_checkpoint(tmp_path: Path) -> None:
    trainer = make(tmp_path, *METHODS["langevin"])
    before = trainer.learner.sampler.state_dict()["kernels.0.proposal.step_size.log_value"].clone()
    trainer.fit()
    after = load_checkpoint(tmp_path / "last.pt")["sampler"]["kernels.0.proposal.step_size.log_value"]
    assert not torch.equal(before, after)


def test_checkpoints_come_by_the_clock_too(tmp_path: Path) -> None:
    found: list[int] = []

    def look(kind: str, number: int) -> None:
        if kind == "iteration" and number > 1:
            found.append(load_checkpoint(tmp_path / "last.pt")["state"]["iteration"])

    trainer = make(tmp_path, "trainer.max_epochs=1", "trainer.checkpoint_seconds=0", at=look)
    trainer.fit()
    assert found == [1, 2, 3, 4]
    assert notes(trainer).iterations == BATCHES
