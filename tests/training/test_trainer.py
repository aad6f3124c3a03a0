"""The training loop: when it stops, what it skips, and what validation must not change."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from metvae_cli.data.base import Split
from metvae_cli.errors import RunError
from metvae_cli.training import trainer as trainer_module
from metvae_cli.training.checkpoint import load_checkpoint
from metvae_cli.training.metrics import weighted_loss
from metvae_cli.training.trainer import Trainer
from tests.training.training import BATCHES, differences, make, notes, whole


def validation(trainer: Trainer) -> tuple[Split, torch.Tensor]:
    """The arguments of an evaluation on the whole validation split."""
    valid = trainer.learner.dataset.valid
    return valid, torch.arange(len(valid))


def pretend_bounds(trainer: Trainer, bounds: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation finds these bounds, one after another."""
    waiting = iter(bounds)
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: {"bound": next(waiting)})


def spoil(trainer: Trainer, iterations: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of these iterations hold a value that is no number."""
    batch = type(trainer.learner.dataset).batch

    def spoiled(self: Any, index: torch.Tensor) -> torch.Tensor:
        x = batch(self, index)
        return x * math.nan if trainer.state.iteration in iterations else x

    monkeypatch.setattr(type(trainer.learner.dataset), "batch", spoiled)


def test_patience_counts_validations_without_a_better_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=9", "trainer.patience=2")
    pretend_bounds(trainer, [-3, -2, -2.5, -1, -1.5, -1, 0], monkeypatch)
    assert trainer.fit() == "patience"
    assert trainer.state.epoch == 6
    assert (trainer.state.best_value, trainer.state.best_epoch) == (-1, 4)


def test_the_best_checkpoint_is_of_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=4")
    pretend_bounds(trainer, [-3, -1, math.nan, -2], monkeypatch)
    assert trainer.fit() == "max_epochs"
    best, last = (load_checkpoint(tmp_path / name) for name in ("best.pt", "last.pt"))
    assert (best["state"]["iteration"], last["state"]["iteration"]) == (2 * BATCHES, 4 * BATCHES)
    assert differences(best["model"], last["model"]) != []
    trainer.load_weights("best.pt")
    assert differences(best["model"], trainer.learner.model.state_dict()) == []


def test_the_clock_ends_a_run(tmp_path: Path) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=100000", "trainer.max_seconds=0.3")
    assert trainer.fit() == "max_seconds"
    assert 0.3 <= trainer.state.seconds < 30
    assert trainer.state.validated_at == trainer.state.iteration
    assert load_checkpoint(tmp_path / "last.pt")["state"]["iteration"] == trainer.state.iteration


def test_seconds_run_over_all_resumes(tmp_path: Path) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=1")
    trainer.fit()
    resumed = make(tmp_path, "trainer.max_epochs=2", f"trainer.max_seconds={trainer.state.seconds / 2}", resume=True)
    assert resumed.fit() == "max_seconds"
    assert resumed.state.iteration == BATCHES


def test_decoded_vectors_end_a_run_over_all_resumes(tmp_path: Path) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=1000", "trainer.max_iterations=2")
    trainer.fit()
    of_one = trainer.state.evaluations // 2
    resumed = make(
        tmp_path, "trainer.max_epochs=1000", f"trainer.max_decoder_evaluations={3 * of_one + 1}", resume=True
    )
    assert resumed.fit() == "max_decoder_evaluations"
    assert (resumed.state.iteration, resumed.state.evaluations) == (4, 4 * of_one)
    assert resumed.state.validated_at == 4


@pytest.mark.parametrize("words", [("sampler=hmc",), ("experiment=digits_amcvae",)], ids=str)
def test_validation_changes_nothing_that_training_reads(tmp_path: Path, words: tuple[str, ...]) -> None:
    often = make(tmp_path / "often", *words)
    often.fit()
    expected = whole(often)
    never = make(tmp_path / "never", *words, "trainer.validate_every=2")
    never.fit()
    assert (len(notes(often).rows), len(notes(never).rows)) == (2, 1)
    for name in ("model", "sampler", "optimizer", "random"):
        assert differences(expected[name], whole(never)[name]) == []


def test_validation_is_repeatable_and_untouched_by_the_stream_of_training(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    first = trainer.evaluate(*validation(trainer))
    before = torch.get_rng_state()
    torch.rand(3)
    assert trainer.evaluate(*validation(trainer)) == first
    torch.set_rng_state(before)
    trainer.evaluate(*validation(trainer))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_is_not_finite_is_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, "trainer.max_iterations=3", "trainer.max_bad_steps=2")
    spoil(trainer, {1}, monkeypatch)
    assert trainer.fit() == "max_iterations"
    assert (trainer.state.bad_steps, trainer.state.consecutive_bad_steps) == (1, 0)
    assert trainer.running.count == 2 * 64
    assert all(torch.isfinite(parameter).all() for parameter in trainer.parameters)
    steps = {float(entry["step"]) for entry in trainer.learner.optimizer.state_dict()["state"].values()}
    assert steps == {2.0}


def test_too_many_bad_steps_in_a_row_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, "trainer.max_bad_steps=3")
    spoil(trainer, {0, 1, 4, 5, 6}, monkeypatch)
    with pytest.raises(RunError, match=r"3 consecutive steps.*optimizer\.lr"):
        trainer.fit()
    assert trainer.state.bad_steps == 5


def test_bounds_that_were_never_finite_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path)
    pretend_bounds(trainer, [math.nan, -math.inf], monkeypatch)
    with pytest.raises(RunError, match="never finite"):
        trainer.fit()


def test_the_kl_term_is_warmed_up(tmp_path: Path) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=5", "trainer.kl_warmup_epochs=4", "trainer.log_every=1")
    trainer.fit()
    logged = [values["train/kl_weight"] for _, values in notes(trainer).seen if "train/kl_weight" in values]
    assert logged == [weight for weight in (0.25, 0.5, 0.75, 1.0, 1.0) for _ in range(BATCHES)]


def test_warming_up_weighs_the_likelihood_and_scales_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, "trainer.kl_warmup_epochs=4", "trainer.max_iterations=1", "trainer.clip_norm=null")
    objective, given = trainer.learner.objective, []

    def watched(*arguments: Any) -> Any:
        given.append(arguments[3])
        output = objective(*arguments)
        return output._replace(loss=output.loss * 0 + trainer.parameters[0].sum())

    monkeypatch.setattr(trainer, "learner", trainer.learner._replace(objective=watched))
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: {"bound": 0.0})
    trainer.fit()
    assert given == [4.0]
    gradient = trainer.parameters[0].grad
    assert gradient is not None
    assert torch.equal(gradient, torch.full_like(gradient, 0.25))


def test_the_score_function_is_warmed_up(tmp_path: Path) -> None:
    """Its weight is 0, 1/2 and 1 in the epochs; the gradient is the pathwise one plus so much of it."""
    trainer = make(tmp_path, "sampler=hmc", "objective=metvae", "trainer.score_warmup_epochs=2", "trainer.max_epochs=3")
    assert [trainer.settings.score_weight(epoch) for epoch in range(4)] == [0.0, 0.5, 1.0, 1.0]
    learner = trainer.learner
    x = learner.dataset.batch(torch.arange(64))
    output = learner.objective(learner.model, learner.sampler, x)
    assert output.score_loss is not None
    parameters = [*learner.model.parameters(), *learner.sampler.parameters()]
    score, full, half, none = (
        torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        for loss in (
            output.score_loss,
            *(weighted_loss(output.loss, output.score_loss, weight) for weight in (1.0, 0.5, 0.0)),
        )
    )
    assert any(part.abs().max() > 0 for part in score)
    for s, a, b, c in zip(score, full, half, none, strict=True):
        assert torch.allclose(a - 0.5 * s, b, atol=1e-6)
        assert torch.allclose(a - s, c, atol=1e-6)
    assert torch.equal(weighted_loss(output.loss, output.score_loss, 0.0).detach(), output.loss.detach())
    assert trainer.fit() == "max_epochs"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_inference_iterations_leave_the_model_as_it_is(tmp_path: Path, optimizer: str) -> None:
    """Two of three iterations change the encoder alone, whatever moments the optimizer has."""
    words = ("trainer.inference_iterations=2", f"optimizer={optimizer}")
    before = None
    for iterations in range(1, 8):
        trainer = make(tmp_path / str(iterations), *words, f"trainer.max_iterations={iterations}")
        trainer.fit()
        model = trainer.learner.model
        parts = model.generative_parameters(), model.inference_parameters()
        now = [torch.cat([parameter.detach().flatten() for parameter in part]) for part in parts]
        if before is not None:
            assert torch.equal(now[0], before[0]) == (iterations % 3 != 0)
            assert not torch.equal(now[1], before[1])
        before = now


@pytest.mark.parametrize(
    ("words", "factors"),
    [
        (("optimizer.schedule=constant",), [1, 1, 1, 1]),
        (("optimizer.schedule=multistep", "optimizer.milestones=[1,3]", "optimizer.gamma=0.5"), [1, 0.5, 0.5, 0.25]),
        (("optimizer.schedule=cosine",), [(1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]),
    ],
    ids=["constant", "multistep", "cosine"],
)
def test_learning_rates_change_once_per_epoch(tmp_path: Path, words: tuple[str, ...], factors: list[float]) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=4", "trainer.log_every=1", *words)
    trainer.fit()
    logged = [values["train/lr"] for _, values in notes(trainer).seen if "train/lr" in values]
    assert logged == pytest.approx([1e-3 * factor for factor in factors for _ in range(BATCHES)])
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == pytest.approx([1e-3 * f for f in factors])


def test_gradients_are_clipped_to_their_largest_norm(tmp_path: Path) -> None:
    trainer = make(tmp_path, "trainer.clip_norm=0.01", "trainer.max_iterations=1", "optimizer=sgd")
    trainer.fit()
    grads = [parameter.grad for parameter in trainer.parameters if parameter.grad is not None]
    assert math.sqrt(sum(float(grad.square().sum()) for grad in grads)) == pytest.approx(0.01, rel=1e-3)
    assert notes(trainer).rows[0]["train/gradient_norm"] > 0.01


def test_scalars_come_at_their_intervals(tmp_path: Path) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=2", "trainer.log_every=3", "trainer.picture_every=2")
    trainer.fit()
    training = [step for step, values in notes(trainer).seen if "train/bound" in values]
    validation = [step for step, values in notes(trainer).seen if "val/bound" in values]
    assert (training, validation) == ([3, 6, 9], [BATCHES, 2 * BATCHES])
    assert notes(trainer).pictured == [2 * BATCHES]


def test_a_short_last_batch_counts_as_the_data_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=2", "trainer.log_every=1", "dataset.batch_size=300")
    monkeypatch.setattr(trainer, "_seconds", lambda: 1.0)
    trainer.fit()
    seen = [values["speed/images_per_second"] for _, values in notes(trainer).seen if "train/bound" in values]
    assert seen == [300, 320, 620, 640]


def test_the_decoders_work_is_counted(tmp_path: Path) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=1", "sampler.num_leapfrog=2", "objective.num_samples=3")
    trainer.fit()
    assert trainer.state.evaluations == 320 * 3 * (1 + 2 * 2)


def test_an_own_stream_leaves_the_outer_one(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    with trainer_module.fork_rng(3):
        drawn = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(3)))


def test_a_run_that_is_behind_ends_with_its_epoch_and_its_checkpoints(tmp_path: Path) -> None:
    asked: list[tuple[int, float]] = []

    def is_behind(epoch: int, bound: float) -> bool:
        asked.append((epoch, bound))
        return epoch == 2

    trainer = make(tmp_path, "trainer.max_epochs=4")
    trainer.is_behind = is_behind
    assert trainer.fit() == "pruned"
    assert asked == [(row["epoch"], row["val/bound"]) for row in notes(trainer).rows]
    assert len(asked) == 2
    saved = load_checkpoint(tmp_path / "last.pt")["state"]
    assert (saved["epoch"], saved["batch"]) == (2, 0)
    assert (tmp_path / "best.pt").exists()


def test_a_run_that_is_behind_at_its_last_validation_is_whole(tmp_path: Path) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=1")
    trainer.is_behind = lambda epoch, bound: True
    assert trainer.fit() == "max_epochs"


def test_a_bound_that_is_not_finite_is_held_against_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, "trainer.max_epochs=1")
    trainer.is_behind = lambda epoch, bound: pytest.fail("asked")
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: {"bound": math.nan})
    with pytest.raises(RunError, match="never finite"):
        trainer.fit()
