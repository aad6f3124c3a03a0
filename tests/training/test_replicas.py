"""Several seeds side by side: each is what its own run is, in numbers, in the loop's decisions and in random stream."""

import gc
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from benchmarks.measuring import LiveBytes
from metvae_cli.data import base
from metvae_cli.errors import Interrupted, RunError
from metvae_cli.training.checkpoint import load_checkpoint
from metvae_cli.training.interruption import Interruption
from metvae_cli.training.replicas import Replica, Replicas, rehearse
from metvae_cli.training.stack import Stack
from metvae_cli.training.streams import Stream
from metvae_cli.training.trainer import Trainer
from tests.training.alongside import NEAR, SEEDS, alone, apart, compare, make, side_by_side
from tests.training.training import differences

LMCVAE = ("sampler=langevin", "sampler.acceptance=none", "sampler.schedule=linear", "objective=annealed")
AGAIN = "trainer.checkpoint_chain=true"
SHORT = "trainer.max_epochs=2"
CLASSIC = ("sampler=hmc", "objective=metvae")  # decisions that are drawn
QUICK = {
    "vae": ("sampler=none", "objective=elbo"),
    "iwae": ("sampler=none", "objective=iwae", "objective.gradient=stl"),
    "metvae": ("objective=metvae", "sampler=hmc_partial", "sampler.reverse=learned", "sampler.learn_persistence=true"),
    "lmcvae": LMCVAE,
    "lmcvae again": (*LMCVAE, AGAIN, SHORT),
}
SLOW = {
    "vcd": ("experiment=digits_vcd",),
    "flow": ("objective=metvae", "sampler=flow", "sampler.direction=lifted", "sampler.hidden=[8]"),
    "hoffman": ("experiment=digits_hoffman",),
    "amcvae": ("experiment=digits_amcvae",),
    "uha": ("experiment=digits_uha",),
    "hvae": ("experiment=digits_hvae",),
    "metvae_flow": ("experiment=digits_metvae_flow",),
    "enumerated": (*CLASSIC, "sampler.decisions=enumerated"),
    "stopped": ("sampler.decisions=stopped", "sampler.schedule=learned"),
    "exact": (*CLASSIC, "sampler.reverse=exact"),
    "running": (*CLASSIC, "objective.baseline=running", "objective.num_samples=1", "trainer.inference_iterations=1"),
    "adapted": (*CLASSIC, "sampler.precondition=adapted", "sampler.step_size_rule=dual_averaging"),
    "spread": (*CLASSIC, "sampler.step_size_rule=variance_sensitive", "trainer.score_warmup_epochs=3", "optimizer=sgd"),
    "cloned": (*CLASSIC, "sampler.cloned_decoder=true", "optimizer=adamax"),
    "independent": ("objective=metvae", "sampler=independent_flow", "sampler.hidden=[8]"),
    "vamp": (*CLASSIC, "prior=vamp", "prior.num_components=5", "encoder.flow=realnvp"),
    "conv": ("encoder=conv", "decoder=conv", "encoder.channels=[2,4]", "decoder.channels=[4,2]"),
    "cubo": ("sampler=none", "objective=cubo"),
    "metvae again": (
        "objective=metvae",
        "sampler=hmc_partial",
        "sampler.reverse=learned",
        "sampler.learn_persistence=true",
        AGAIN,
        SHORT,
    ),
    "amcvae again": ("experiment=digits_amcvae", AGAIN),
    "flow again": ("experiment=digits_metvae_flow", AGAIN, SHORT),
    "exact again": (*CLASSIC, "sampler.reverse=exact", AGAIN),
    "running again": (
        *CLASSIC,
        "objective.baseline=running",
        "objective.num_samples=1",
        "trainer.score_warmup_epochs=3",
        AGAIN,
    ),
    "cloned again": (*CLASSIC, "sampler.cloned_decoder=true", AGAIN),
    "conv again": (
        *CLASSIC,
        "encoder=conv",
        "decoder=conv",
        "encoder.channels=[2,4]",
        "decoder.channels=[4,2]",
        AGAIN,
        SHORT,
    ),
}


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data in double precision."""
    as_float, drawn_pixels = base.as_float, base.drawn_pixels
    monkeypatch.setattr(base, "as_float", lambda values: as_float(values).double())
    monkeypatch.setattr(base, "drawn_pixels", lambda values: drawn_pixels(values).double())


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_each_replica_is_its_own_run(tmp_path: Path, name: str) -> None:
    assert compare(tmp_path, {**QUICK, **SLOW}[name]) == ["max_epochs"] * len(SEEDS)


@pytest.mark.usefixtures("double")
def test_replicas_that_share_a_stream_are_found_out(tmp_path: Path) -> None:
    words = (*QUICK["vae"], "trainer.max_epochs=1")
    together = side_by_side(tmp_path / "together", words)
    shared = [replica._replace(stream=together.replicas[0].stream) for replica in together.replicas]
    Replicas(shared, Interruption()).fit()
    own, stream, _ = alone(tmp_path / "alone", SEEDS[1], words)
    assert "random stream" in (found := apart(own, stream, shared[1]))
    assert "val/bound" in found


def test_single_precision_stays_near(tmp_path: Path) -> None:
    words = (*QUICK["lmcvae"], "trainer.max_epochs=2")
    replicas = [Replica(make(tmp_path / "a", seed, words, precise=False), Stream()) for seed in SEEDS]
    Replicas(replicas, Interruption()).fit()
    for seed, replica in zip(SEEDS, replicas, strict=True):
        own = make(tmp_path / "b", seed, words, precise=False)
        own.fit()
        for ours, theirs in zip(own.parameters, replica.trainer.parameters, strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


def poison(trainer: Trainer, kind: str, number: int) -> None:
    """The fourth iteration of the second seed is not finite."""
    if trainer.seed == SEEDS[1] and kind == "iteration" and number in (3, 4):
        trainer.parameters[0].data *= torch.nan if number == 3 else 0.0
        if number == 4:
            trainer.parameters[0].data.fill_(0.01)


@pytest.mark.usefixtures("double")
def test_a_step_that_is_not_finite_is_skipped_by_its_replica_alone(tmp_path: Path) -> None:
    words = (*QUICK["lmcvae"], "trainer.max_epochs=2", "trainer.clip_norm=5")
    together = side_by_side(tmp_path / "together", words, at=poison)
    together.fit()
    assert [replica.trainer.state.bad_steps for replica in together.replicas] == [0, 1, 0]
    for seed, replica in zip(SEEDS, together.replicas, strict=True):
        own, stream, _ = alone(tmp_path / "alone", seed, words, poison)
        assert apart(own, stream, replica) == []


@pytest.mark.usefixtures("double")
def test_one_that_fails_leaves_the_others(tmp_path: Path) -> None:
    def spoil(trainer: Trainer, kind: str, number: int) -> None:
        if trainer.seed == SEEDS[0] and (kind, number) == ("iteration", 2):
            trainer.parameters[0].data *= torch.nan

    ends = compare(tmp_path, (*QUICK["vae"], "trainer.max_epochs=2", "trainer.max_bad_steps=3"), spoil)
    assert isinstance(ends[0], RunError)
    assert ends[1:] == ["max_epochs", "max_epochs"]


@pytest.mark.usefixtures("double")
def test_each_has_its_own_patience(tmp_path: Path) -> None:
    words = (*QUICK["vae"], "trainer.patience=1", "optimizer.lr=0.1", "trainer.max_epochs=30")
    together = side_by_side(tmp_path / "count", words)
    together.fit()
    assert len({replica.trainer.state.epoch for replica in together.replicas}) > 1
    assert set(compare(tmp_path, words)) == {"patience"}


def end_of(together: Replicas) -> dict[str, object]:
    """All that training changes."""
    return {
        str(replica.trainer.seed): {
            "modules": replica.trainer.modules.state_dict(),
            "optimizer": replica.trainer.learner.optimizer.state_dict(),
            "stream": replica.stream.generators["cpu"].get_state(),
            "best": replica.trainer.state.best_value,
        }
        for replica in together.replicas
    }


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("speaker", [SEEDS[0], SEEDS[-1]])
def test_a_signal_stops_all_and_a_resume_ends_where_they_would_have_ended(tmp_path: Path, speaker: int) -> None:
    words = (*QUICK["lmcvae"], "trainer.max_epochs=3")
    straight = side_by_side(tmp_path / "straight", words)
    straight.fit()

    def stop(trainer: Trainer, kind: str, number: int) -> None:
        if trainer.seed == speaker and (kind, number) == ("iteration", 7):
            trainer.exchange.interruption.signum = 15

    stopped = side_by_side(tmp_path / "stopped", words, at=stop)
    assert all(isinstance(end, Interrupted) for end in stopped.fit())
    places = [load_checkpoint(tmp_path / "stopped" / str(seed) / "last.pt")["state"]["iteration"] for seed in SEEDS]
    assert set(places) == {7}
    resumed = side_by_side(tmp_path / "stopped", words, resume=True)
    assert resumed.fit() == ["max_epochs"] * len(SEEDS)
    assert differences(end_of(straight), end_of(resumed)) == []


@pytest.mark.usefixtures("double")
def test_one_that_is_ahead_waits_for_the_others(tmp_path: Path) -> None:
    words = QUICK["lmcvae"]
    for seed in SEEDS:
        make(tmp_path / "ahead", seed, (*words, f"trainer.max_iterations={seed}")).fit()
    resumed = side_by_side(tmp_path / "ahead", (*words, "trainer.max_iterations=12"), resume=True)
    resumed.fit()
    for seed, replica in zip(SEEDS, resumed.replicas, strict=True):
        own = make(tmp_path / "alone", seed, (*words, "trainer.max_iterations=12"))
        own.fit()
        for ours, theirs in zip(own.parameters, replica.trainer.parameters, strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=NEAR)


@pytest.mark.usefixtures("double")
def test_a_checkpoint_holds_one_run_and_not_the_stack(tmp_path: Path) -> None:
    words = (*QUICK["vae"], "trainer.max_epochs=1")
    side_by_side(tmp_path / "together", words).fit()
    make(tmp_path / "alone", SEEDS[0], words).fit()
    sizes = [(tmp_path / kind / str(SEEDS[0]) / "last.pt").stat().st_size for kind in ("together", "alone")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


@pytest.mark.usefixtures("double")
def test_what_cannot_be_mapped_over_is_named(tmp_path: Path) -> None:
    words = ("sampler=none", "objective=iwae", "objective.gradient=dreg", "objective.num_samples=3")
    together = side_by_side(tmp_path, words)
    assert "hook" in rehearse(together.replicas)


@pytest.mark.usefixtures("double")
def test_replicas_that_are_not_of_one_configuration_are_found_out(tmp_path: Path) -> None:
    replicas = [
        Replica(make(tmp_path, seed, (*QUICK["vae"], f"objective.num_samples={count}")), Stream())
        for seed, count in ((0, 1), (1, 2))
    ]
    assert "each computes alone" in rehearse(replicas)


# -------------------------------------------------------------------- chains that are computed again


def peak(folder: Path, num_steps: int, *words: str) -> int:
    """Bytes of all tensors at a time, at most, in an iteration of all seeds."""
    wide = ("latent_dim=4", "decoder.hidden=[64]", f"sampler.num_steps={num_steps}")
    together = side_by_side(folder, (*LMCVAE, *words, *wide)).replicas
    stack = Stack([replica.trainer.learner for replica in together], [replica.stream for replica in together])
    gc.disable()  # what only the collector would find counts as held
    try:
        with LiveBytes() as live:
            stack.gradients([torch.arange(50)] * len(SEEDS), together[0].trainer.settings.weights(0, 0))
    finally:
        gc.enable()
    return live.peak


@pytest.mark.usefixtures("double")
def test_memory_of_chains_that_are_computed_again_hardly_grows_with_the_steps(tmp_path: Path) -> None:
    again = [peak(tmp_path, steps, AGAIN) for steps in (5, 15)]
    kept = [peak(tmp_path, steps) for steps in (5, 15)]
    assert kept[1] > 2 * kept[0]
    assert 10 * (again[1] - again[0]) < kept[1] - kept[0]


@pytest.mark.usefixtures("double")
def test_a_second_pass_that_draws_other_numbers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "rehearsal", lambda self, place=None: nullcontext())
    together = side_by_side(tmp_path, (*LMCVAE, AGAIN, "trainer.max_epochs=1"))
    ends = together.fit()
    assert all(isinstance(end, RunError) and "came out otherwise" in str(end) for end in ends)
