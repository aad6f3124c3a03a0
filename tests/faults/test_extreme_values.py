"""Step sizes, data and likelihoods at the ends of what numbers can be: trained, refused, or told to be too much."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metvae_cli.errors import RunError
from metvae_cli.training.trainer import Trainer
from tests.faults.methods import SMALL, all_finite, make, some, train, weights
from tests.training.training import differences, notes


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


ANNEALED = ("objective=annealed", "sampler.acceptance=none", "sampler.schedule=linear")
STEPS = {
    "random_walk": ("sampler=random_walk",),
    "langevin": ("sampler=langevin",),
    "hmc": ("sampler=hmc",),
    "hmc_partial": ("sampler=hmc_partial",),
    "random_walk unadjusted": ("sampler=random_walk", *ANNEALED),
    "langevin unadjusted": ("sampler=langevin", *ANNEALED),
    "hmc unadjusted": ("sampler=hmc", *ANNEALED),
    "hmc_partial unadjusted": ("sampler=hmc_partial", *ANNEALED),
    "hmc_tempered": ("sampler=hmc_tempered", "objective=annealed"),
}


@pytest.mark.parametrize("step_size", ["1e-12", "1e6", "1e38", "1e300"])
@pytest.mark.parametrize("name", some(sorted(STEPS), ("hmc_tempered",)))
def test_an_extreme_step_size_trains_or_says_why_not(name: str, step_size: str, tmp_path: Path) -> None:
    """Weights and step sizes that were finite stay so; a step size beyond single precision is told as one."""
    trainer = make(tmp_path, *STEPS[name], f"sampler.step_size={step_size}", "trainer.max_iterations=3")
    before = weights(trainer)
    if step_size == "1e-12" or (step_size == "1e6" and "unadjusted" not in name and name != "hmc_tempered"):
        trainer.fit()
        assert trainer.state.bad_steps == 0
        assert differences(before, weights(trainer)) != []
    elif (name, step_size) == ("random_walk unadjusted", "1e6"):
        trainer.fit()  # its weights are terrible numbers, but numbers
    else:
        with pytest.raises(RunError, match=r"no step was made.*sampler\.step_size"):
            trainer.fit()
        assert differences(before, weights(trainer)) == []
    assert all_finite(weights(trainer))


@pytest.mark.parametrize("sampler", ["random_walk", "langevin", "hmc", "hmc_partial", "hmc_tempered"])
@pytest.mark.parametrize("step_size", some(["0", "-1", "inf", "nan", "1e400"], ("0",)))
def test_a_step_size_that_is_none_is_refused_in_one_line(
    sampler: str, step_size: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(f"sampler={sampler}", f"sampler.step_size={step_size}") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "sampler.step_size=" in line
    assert "must be a positive finite number" in line
    assert list(here.iterdir()) == []


LEVELS = "dataset.values=levels"
REAL = "dataset.values=real"
SAME: dict[str, tuple[type[np.generic], float, tuple[str, ...]]] = {
    "zeros": (np.uint8, 0, ()),
    "zeros, drawn": (np.uint8, 0, (LEVELS, "dataset.binarization=dynamic")),
    "zeros, dequantized": (np.uint8, 0, (LEVELS, "dataset.dequantize=true", "likelihood=continuous_bernoulli")),
    "zeros, discretized": (np.uint8, 0, (LEVELS, "likelihood=discretized_logistic")),
    "grey, discretized": (np.uint8, 7, ("likelihood=discretized_logistic",)),
    "grey, categorical": (np.uint8, 7, ("likelihood=categorical",)),
    "grey, continuous": (np.uint8, 7, ("likelihood=continuous_bernoulli",)),
    "grey, Gaussian": (np.uint8, 7, ("likelihood=gaussian", "likelihood.predict_scale=true")),
    "white, discretized": (np.uint8, 255, (LEVELS, "likelihood=discretized_logistic")),
    "white, continuous": (np.uint8, 255, (LEVELS, "likelihood=continuous_bernoulli")),
    "ones": (np.uint8, 1, ()),
    "real zeros": (np.float32, 0, (REAL, "likelihood=gaussian", "likelihood.learn_scale=true")),
    "constant": (np.float32, 3.5, ("likelihood=gaussian", "dataset.standardize=true")),
    "denormal": (np.float32, 1e-40, (REAL, "likelihood=gaussian", "dataset.standardize=true")),
    "no counts": (np.int64, 0, ("dataset.values=counts", "likelihood=poisson")),
}
OF_A_FILE = ("dataset=array", "dataset.num_valid=20", "dataset.num_test=20", "dataset.path=data.npy")
PLAIN = tuple(word for word in SMALL if not word.startswith(("dataset.num_test", "dataset.num_valid")))


def of_values(folder: Path, values: NDArray[Any], *words: str) -> Trainer:
    """A trainer on the user's own data."""
    np.save(folder / "data.npy", values)
    return make(folder, *OF_A_FILE, *words, small=PLAIN)


@pytest.mark.parametrize("name", some(SAME, ("zeros", "grey, discretized", "real zeros", "no counts")))
def test_data_that_are_all_the_same_train(name: str, here: Path) -> None:
    kind, value, words = SAME[name]
    images = np.full((120, 4, 4), value, kind)
    trainer = of_values(here, images, "sampler=langevin", *ANNEALED, "sampler.num_steps=2", *words)
    trainer.fit()
    assert trainer.state.bad_steps == 0
    assert all_finite(weights(trainer))
    assert all(math.isfinite(value) for value in notes(trainer).rows[-1].values())


OVERFLOWS = {
    "a scale of nothing": (np.float32, 3.5, ("likelihood=gaussian", "likelihood.scale=1e-30")),
    "huge values": (np.float32, 1e30, ("likelihood=gaussian",)),
    "huge counts": (np.int64, 2**24, ("likelihood=poisson",)),
}


@pytest.mark.parametrize("name", OVERFLOWS)
def test_a_likelihood_that_overflows_makes_no_step_and_says_so(name: str, here: Path) -> None:
    kind, value, words = OVERFLOWS[name]
    values = np.full((120, 3), value, kind)
    trainer = of_values(here, values, "sampler=none", "objective=elbo", *words)
    before = weights(trainer)
    with pytest.raises(RunError, match=r"no step was made.*dataset\.standardize=true"):
        trainer.fit()
    assert differences(before, weights(trainer)) == []
    assert trainer.state.best_value == -math.inf
    assert not (here / "best.pt").exists()


def test_a_poisson_rate_that_overflows_is_skipped_until_it_is_one_again(here: Path) -> None:
    values = np.random.default_rng(0).poisson(3.0, (120, 3))
    trainer = of_values(here, values, "sampler=none", "objective=elbo", "likelihood=poisson", "trainer.max_epochs=9")
    (bias,) = [tensor for name, tensor in trainer.learner.model.decoder.named_parameters()][-1:]  # pyright: ignore

    def overflow(kind: str, number: int) -> None:
        if kind == "iteration" and number in (3, 5):
            bias.data += {3: 100.0, 5: -100.0}[number]  # e^100 is beyond single precision

    notes(trainer).at = overflow
    trainer.fit()
    assert (trainer.state.bad_steps, trainer.state.consecutive_bad_steps) == (2, 0)
    assert all_finite(weights(trainer))
    assert trainer.state.best_epoch > 5 / 2
