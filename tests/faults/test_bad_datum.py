"""A datum that is no number: the estimates of all other data are, bit by bit, what they are without it."""

import math
from collections.abc import Iterable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from metvae_cli.build import Experiment, build_experiment
from metvae_cli.evaluation.annealed_likelihood import annealed_importance_sampling
from metvae_cli.evaluation.annealing import AnnealingSettings
from metvae_cli.evaluation.frozen import FrozenModel, freeze
from metvae_cli.evaluation.importance import importance_sampling
from metvae_cli.objectives.base import ObjectiveOutput
from tests.faults.methods import METHODS, SMALL, some
from tests.runs import configuration

BAD = (math.nan, math.inf, -math.inf, 1e30)
SPOILED, DATA = 3, 8
OTHERS = torch.tensor([datum for datum in range(DATA) if datum != SPOILED])
CONV = ("encoder=conv", "decoder=conv", "encoder.channels=[2,4]", "decoder.channels=[4,2]")
CLASSIC = ("sampler=hmc", "objective=metvae")  # decisions that are drawn
OPTIONS = {
    "conv": ("experiment=digits_lmcvae", *CONV),
    "bfloat16": ("experiment=digits_lmcvae", "trainer.precision=bf16-mixed"),
    "again in the backward pass": ("experiment=digits_uha", "trainer.checkpoint_chain=true"),
    "adapted coordinates": (*CLASSIC, "sampler.precondition=adapted", "sampler.step_size_rule=adapted"),
    "spread": (*CLASSIC, "sampler.step_size_rule=variance_sensitive"),
    "running baseline": (*CLASSIC, "objective.baseline=running", "objective.num_samples=1"),
    "enumerated": (*CLASSIC, "sampler.decisions=enumerated", "sampler.reverse=exact"),
    "stopped": ("sampler.decisions=stopped",),
    "cloned": (*CLASSIC, "sampler.cloned_decoder=true"),
    "independent": ("objective=metvae", "sampler=independent_flow", "encoder.head=full"),
    "vamp": (*CLASSIC, "prior=vamp", "prior.num_components=3"),
    "two levels": (*CLASSIC, "prior=hierarchical", "encoder=hierarchical"),
}
WORDS = METHODS | OPTIONS


def experiment(name: str) -> Experiment:
    unfit = "hidden" if name == "conv" else "nothing"
    return build_experiment(configuration(*(word for word in SMALL if unfit not in word), *WORDS[name]), [])


def spoiled(x: Tensor, value: float) -> Tensor:
    """The same data but for one, all of which is `value`."""
    return x.index_fill(0, torch.tensor([SPOILED]), value)


def said(experiment: Experiment, x: Tensor, *, training: bool) -> ObjectiveOutput:
    """What the objective says of a batch, always with the same noise."""
    learner = experiment.learner
    torch.manual_seed(1)
    with torch.set_grad_enabled(training):
        return learner.objective(learner.model, learner.sampler, x)


def per_datum(output: ObjectiveOutput) -> dict[str, Tensor]:
    """All that it says of single data, the data first."""
    ends = {"initial": output.initial, "final": output.final}
    columns = {f"{end}.{name}": value for end, point in ends.items() for name, value in point._asdict().items()}
    columns = {name: value.movedim(1, 0) for name, value in columns.items() if value is not None}
    records = {name: value for name, value in output.info._asdict().items() if isinstance(value, Tensor)}
    columns |= {name: value.movedim(2, 0) for name, value in records.items()}
    return {"bound": output.bound, "log_weights": output.log_weights.T, **columns}


def changed(first: ObjectiveOutput, second: ObjectiveOutput) -> list[str]:
    """What differs of the data that were left alone."""
    one, other = per_datum(first), per_datum(second)
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name][OTHERS], other[name][OTHERS])]


@pytest.mark.parametrize("name", some(sorted(WORDS), ("amcvae", "cubo", "metvae_flow", "vcd")))
def test_an_objective_says_of_the_others_what_it_says_without_it(name: str) -> None:
    made = experiment(name)
    x = made.learner.dataset.batch(torch.arange(DATA))
    for training in (True, False):
        expected = said(made, x, training=training)
        assert torch.isfinite(expected.loss)
        for value in BAD:
            found = said(made, spoiled(x, value), training=training)
            assert changed(expected, found) == []
            assert not torch.isfinite(found.bound[SPOILED])
            assert not torch.isfinite(found.loss)  # so that the trainer makes no step of it


class Centred(nn.Module):
    """An encoder that looks at the whole batch."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> object:
        return self.encoder(x - x.mean(0))


def test_an_encoder_that_mixes_data_is_found_out() -> None:
    made = experiment("lmcvae")
    model = made.learner.model
    model.encoder = Centred(cast(nn.Module, model.encoder))  # pyright: ignore[reportAttributeAccessIssue]
    x = made.learner.dataset.batch(torch.arange(DATA))
    for value in (math.nan, 0.0):
        found = changed(said(made, x, training=False), said(made, spoiled(x, value), training=False))
        assert {"bound", "log_weights", "initial.z", "accept_prob"} <= set(found)


def estimates(model: FrozenModel, x: Tensor, estimator: str) -> dict[str, Tensor]:
    """Of each datum, by an evaluator."""
    data: Iterable[tuple[Tensor, Tensor]] = [(torch.arange(len(x)), x)]
    if estimator == "importance":
        found = importance_sampling(model, data, 40)
        return found._asdict()
    start = "encoder" if estimator == "ais from the encoder" else "prior"
    settings = AnnealingSettings(num_temperatures=6, num_chains=3, start=start)
    annealed = annealed_importance_sampling(model, data, settings)
    return {"per_datum": annealed.per_datum, "effective_chains": annealed.effective_chains}


@pytest.mark.parametrize("estimator", ["importance", "ais", "ais from the encoder"])
def test_an_evaluator_says_of_the_others_what_it_says_without_it(
    estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metvae_cli.evaluation.annealed_likelihood.PILOT_TEMPERATURES", 20)
    monkeypatch.setattr("metvae_cli.evaluation.annealing.PILOT_TEMPERATURES", 20)
    made = experiment("vae")
    model = freeze(made.learner.model, made.device)
    x = made.learner.dataset.batch(torch.arange(DATA)).double()
    expected = estimates(model, x, estimator)
    assert torch.isfinite(expected["per_datum"]).all()
    for value in (math.nan, math.inf):
        found = estimates(model, spoiled(x, value), estimator)
        assert not torch.isfinite(found["per_datum"][SPOILED])
        for name in expected:
            assert torch.equal(expected[name][OTHERS], found[name][OTHERS]), name
    # An estimator that centres its batch would be found out.
    mixed = [estimates(model, data - data.mean(0), estimator)["per_datum"] for data in (x, spoiled(x, 0.0))]
    assert not torch.equal(mixed[0][OTHERS], mixed[1][OTHERS])
