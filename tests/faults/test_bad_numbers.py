"""Numbers that are none, in data, weights, losses and bounds: what training makes of them.

A step whose loss or gradient is not finite is not made and is counted; so many in a row end the run; a bound that is
not finite is never the best.
"""

import math
from pathlib import Path

import pytest

from metvae_cli.errors import RunError
from metvae_cli.training.checkpoint import load_checkpoint
from tests.faults.methods import METHODS, NAMES, SPOILS, all_finite, make, some, spoil_batches, table, weights
from tests.training.training import BATCHES, differences, notes

QUICK = ("amcvae", "vae")


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("name", some(NAMES, QUICK))
def test_a_step_of_a_bad_batch_is_left_out_and_counted(
    name: str, spoil: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, *METHODS[name], "trainer.max_iterations=3")
    seen = []
    trainer.tracker.progress = lambda *_: seen.append(weights(trainer))  # pyright: ignore[reportAttributeAccessIssue]
    spoil_batches(monkeypatch, SPOILS[spoil], lambda number: number == 1)
    assert trainer.fit() == "max_iterations"
    assert (trainer.state.bad_steps, trainer.state.consecutive_bad_steps) == (1, 0)
    assert differences(seen[0], seen[1]) == []  # neither weights nor step sizes
    assert differences(seen[1], seen[2]) != []
    assert all_finite(load_checkpoint(tmp_path / "best.pt"))
    assert math.isfinite(trainer.state.best_value)
    assert notes(trainer).rows[-1]["bad_steps"] == 1
    assert math.isfinite(notes(trainer).rows[-1]["train/bound"])


def test_an_epoch_without_a_step_has_no_training_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row says so, and keeps the columns of the epochs with some."""
    trainer = make(tmp_path, *METHODS["lmcvae"], "trainer.max_epochs=4")
    spoil_batches(monkeypatch, SPOILS["all data"], lambda number: number // BATCHES in (0, 2))
    trainer.fit()
    rows = table(tmp_path)
    assert [math.isfinite(float(row["train/bound"])) for row in rows] == [False, True, False, True]
    assert [math.isfinite(float(row["train/accept_1"])) for row in rows] == [False, True, False, True]
    assert [int(row["bad_steps"]) for row in rows] == [5, 5, 10, 10]
    assert all(math.isfinite(float(row["val/bound"])) for row in rows)


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 319])
@pytest.mark.parametrize("name", some(NAMES, QUICK))
def test_a_batch_of_one_datum_is_a_batch(name: str, size: int, tmp_path: Path) -> None:
    """As the last of an epoch, 320 = 319 + 1, and all of them."""
    iterations = {319: 2, 1: 3}[size]
    trainer = make(tmp_path, *METHODS[name], f"dataset.batch_size={size}", f"trainer.max_iterations={iterations}")
    before = weights(trainer)
    trainer.fit()
    assert trainer.state.bad_steps == 0
    assert differences(before, weights(trainer)) != []
    assert all_finite(weights(trainer))
    assert all(math.isfinite(value) for value in notes(trainer).rows[-1].values())


@pytest.mark.parametrize("name", some(NAMES, QUICK[:1]))
def test_weights_that_are_no_numbers_end_the_run_and_are_never_the_best(name: str, tmp_path: Path) -> None:
    trainer = make(tmp_path, *METHODS[name], "trainer.max_epochs=3", "trainer.max_bad_steps=7")

    def poison(kind: str, number: int) -> None:
        if (kind, number) == ("iteration", BATCHES + 1):
            trainer.parameters[0].data[0] = math.nan

    notes(trainer).at = poison
    with pytest.raises(RunError, match="7 consecutive steps had a loss or gradient that was not finite"):
        trainer.fit()
    assert [math.isfinite(row["val/bound"]) for row in notes(trainer).rows] == [True, False]
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["state"]["iteration"] == BATCHES
    assert all_finite(best)


@pytest.mark.parametrize(
    ("lr", "words"),
    [
        (1e10, METHODS["vae"]),
        (1e10, (*METHODS["metvae_hmc"], "optimizer=adamax")),
        (1e30, (*METHODS["vae"], "optimizer=sgd", "trainer.clip_norm=null")),
    ],
    ids=["adam", "adamax", "sgd"],
)
def test_a_loss_that_explodes_leaves_the_best_weights_as_they_were(
    lr: float, words: tuple[str, ...], tmp_path: Path
) -> None:
    """After a good epoch the learning rate is absurd."""
    trainer = make(tmp_path, *words, "trainer.max_epochs=6", "trainer.max_bad_steps=9")

    def explode(kind: str, number: int) -> None:
        if (kind, number) == ("iteration", BATCHES + 1):
            trainer.learner.optimizer.param_groups[0]["lr"] = lr
            trainer.learner.scheduler.base_lrs = [lr]

    notes(trainer).at = explode
    with pytest.raises(RunError, match="9 consecutive steps"):
        trainer.fit()
    assert all_finite(load_checkpoint(tmp_path / "best.pt"))
    assert math.isfinite(trainer.state.best_value)


@pytest.mark.parametrize("bounds", [[math.nan, -2, math.inf, -3], [math.inf, -2, -math.inf, -3]], ids=str)
def test_a_bound_that_is_not_finite_is_neither_best_nor_better(
    bounds: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, *METHODS["vae"], "trainer.max_epochs=9", "trainer.patience=2")
    waiting = iter(bounds)
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: {"bound": next(waiting)})
    assert trainer.fit() == "patience"
    assert (trainer.state.best_value, trainer.state.best_epoch, trainer.state.epoch) == (-2, 2, 4)
    assert load_checkpoint(tmp_path / "best.pt")["state"]["iteration"] == 2 * BATCHES


def test_half_precision_skips_what_is_not_finite_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, *METHODS["lmcvae"], "trainer.precision=bf16-mixed")
    spoil_batches(monkeypatch, SPOILS["one datum"], lambda number: number in (1, 2))
    trainer.fit()
    assert trainer.state.bad_steps == 2
    assert all_finite(load_checkpoint(tmp_path / "best.pt"))
