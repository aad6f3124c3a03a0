"""What is measured of a sampler: modes, bounds, log Z, mixing, and the walk of a chain."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from metvae_cli.build_inference import GROUPS, InferenceRun, build_inference
from metvae_cli.evaluation.density_pictures import dots, histograms, walk_picture
from metvae_cli.evaluation.inference import Approximation, approximate, chain_path, describe_chains, long_chains
from metvae_cli.evaluation.modes import count_modes
from metvae_cli.evaluation.walk import record_walk
from metvae_cli.samplers.assembly import make_adaptations
from metvae_cli.targets.base import Modes
from metvae_cli.targets.mixtures import EightModes
from tests.infer.shipped import NAMES, built, node, shipped, trained
from tests.runs import configuration

EIGHT = ("target=eight_modes", "target.radius=20", "objective=none")


def modes_of(target: EightModes) -> Modes:
    assert target.modes is not None
    return target.modes


def chains_of(run: InferenceRun, **settings: int) -> dict[str, float]:
    """The numbers of long chains."""
    changed = dataclasses.replace(run.evaluation, **settings)
    found = long_chains(run.target, run.model, run.sampler, changed, make_adaptations(run.sampler, run.target_accept))
    return describe_chains(found, run.target, run.target.sample(2000))


def approximation(run: InferenceRun, draws: int = 4000) -> Approximation:
    assert run.learner is not None
    return approximate(run.learner.objective, run.model, run.sampler, run.model.blank(20), draws)


@pytest.mark.parametrize("dim", [2, 3, 20, 100])
def test_exact_draws_find_all_modes_in_their_shares(dim: int) -> None:
    target = EightModes(dim)
    counted = count_modes(target.sample(8000), modes_of(target))
    assert counted.found == 8
    assert counted.shares.sum() > 0.97
    assert counted.weight_error < 0.03


@pytest.mark.parametrize("dim", [2, 20])
def test_draws_of_some_modes_find_these_and_no_others(dim: int) -> None:
    target = EightModes(dim)
    modes = modes_of(target)
    drawn = modes.centres[torch.randint(3, (8000,))] + torch.randn(8000, dim)
    counted = count_modes(drawn, modes)
    assert counted.found == 3
    assert counted.weight_error == pytest.approx(5 / 8, abs=0.03)


def test_a_mode_counts_from_a_tenth_of_its_share_on() -> None:
    modes = modes_of(EightModes())
    for few, found in ((99, 1), (101, 2)):
        drawn = modes.centres[[0]].repeat(8000, 1)
        drawn[:few] = modes.centres[1]
        assert count_modes(drawn, modes).found == found


def test_draws_between_modes_find_none() -> None:
    counted = count_modes(torch.zeros(100, 2), modes_of(EightModes()))
    assert counted.found == 0
    assert counted.weight_error != counted.weight_error  # NaN: there are no shares to compare


def test_a_sampler_that_is_right_finds_the_modes_that_a_stuck_one_does_not() -> None:
    """Independent proposals from a wide Gaussian visit every mode; short steps leave none."""
    wide = ("initial=fixed", "initial.scale=16", "sampler=independent")
    right = chains_of(built(*EIGHT, *wide), chains=20, chain_draws=2000, warm_up=20)
    assert right["chains/modes_found"] == 8
    assert right["chains/r_hat"] < 1.1
    assert right["chains/energy_distance"] < 0.3
    short = ("sampler=random_walk", "sampler.step_size_rule=fixed", "sampler.step_size=0.5")
    stuck = chains_of(built(*EIGHT, *short), chains=2, chain_draws=1000, warm_up=1000)
    assert stuck["chains/modes_found"] <= 2
    assert stuck["chains/mode_weight_error"] > 0.7
    assert not stuck["chains/r_hat"] < 1.5 or stuck["chains/modes_found"] == 1
    assert stuck["chains/energy_distance"] > 1


def moments(*words: str) -> tuple[dict[str, float], float, float]:
    """Of plain chains on a correlated Gaussian: the numbers, and the largest errors of mean and covariance.

    The errors are in units of the standard error of the mean.
    """
    run = built("target=gaussian", "target.correlation=0.6", "objective=none", *words)
    settings = dataclasses.replace(run.evaluation, chains=40, chain_draws=1600, warm_up=200)
    found = long_chains(run.target, run.model, run.sampler, settings, make_adaptations(run.sampler, run.target_accept))
    numbers = describe_chains(found, run.target, None)
    draws, unit = found.draws.flatten(0, 2), numbers["chains/effective_size"] ** -0.5
    covariance = torch.cov(draws.T) - torch.tensor([[1.0, 0.6], [0.6, 1.0]])
    assert numbers["chains/evaluations"] == 40 * found.evaluations
    assert numbers["chains/effective_size_per_evaluation"] == pytest.approx(unit**-2 / numbers["chains/evaluations"])
    return numbers, draws.mean(0).abs().max().item() / unit, covariance.abs().max().item() / unit


@pytest.mark.parametrize(
    "sampler", ["random_walk", "langevin", "hmc", pytest.param("hmc_partial", marks=pytest.mark.slow)]
)
def test_a_plain_chain_recovers_the_moments_of_a_gaussian(sampler: str) -> None:
    numbers, of_mean, of_covariance = moments(f"sampler={sampler}")
    assert numbers["chains/r_hat"] < 1.01
    assert numbers["chains/effective_size"] > 2000
    assert of_mean < 5
    assert of_covariance < 10


def test_a_chain_with_another_limit_is_noticed() -> None:
    """Unadjusted Langevin steps of this length make the Gaussian wider."""
    words = ("sampler=langevin", "sampler.acceptance=none", "sampler.step_size_rule=fixed", "sampler.step_size=0.4")
    assert moments(*words)[2] > 10


OBJECTIVES = {
    "elbo": "sampler=none objective=elbo",
    "iwae": "sampler=none objective=iwae",
    "renyi": "sampler=none objective=renyi",
    "cubo": "sampler=none objective=cubo",
    "metvae": "sampler=random_walk objective=metvae sampler.step_size=0.5",
    "metvae_log_mean_exp": "sampler=hmc objective=metvae objective.functional=log_mean_exp",
    "metvae_flow": "sampler=flow objective=metvae",
    "annealed": "sampler=langevin sampler.acceptance=none objective=annealed",
    "annealed_adjusted": "sampler=hmc sampler.schedule=linear objective=annealed sampler.step_size=0.3",
    "hvae": "sampler=hmc_tempered objective=annealed",
    "hoffman": "sampler=hmc sampler.acceptance=metropolis sampler.step_size_rule=adapted objective=hoffman",
    "vcd": "sampler=hmc sampler.acceptance=metropolis sampler.step_size_rule=adapted objective=vcd",
}


@pytest.mark.parametrize("words", OBJECTIVES.values(), ids=OBJECTIVES.keys())
@pytest.mark.parametrize("target", ["ring", pytest.param("gaussian", marks=pytest.mark.slow)])
def test_no_bound_lies_above_the_log_normalizer(target: str, words: str) -> None:
    run = trained(built(f"target={target}", *words.split(), "initial.scale=1.5"), 60)
    found = approximation(run)
    assert run.target.log_normalizer is not None
    assert found.draws.shape[1] == 2
    assert len(found.draws) >= 4000
    assert found.bound <= run.target.log_normalizer + 5 * found.bound_se
    assert found.bound_se > 0
    assert 0 < found.effective <= 1


@pytest.mark.parametrize(
    ("words", "unbiased"),
    [
        ("sampler.acceptance=barker", True),
        pytest.param("sampler.acceptance=metropolis sampler.reverse=exact", True, marks=pytest.mark.slow),
        ("sampler.acceptance=metropolis", False),
        ("sampler.decisions=enumerated", False),
        pytest.param("sampler.decisions=enumerated objective.functional=log_mean_exp", True, marks=pytest.mark.slow),
    ],
)
def test_weights_that_fall_short_of_z_are_called_so(words: str, unbiased: bool) -> None:
    """And only those: the others are within their errors, these are far below."""
    base = ("target=gaussian", "sampler=random_walk", "sampler.step_size=1.0", "objective=metvae", "initial.scale=1.2")
    run = built(*base, *words.split())
    found = approximation(run, 40_000)
    assert run.target.log_normalizer is not None
    assert found.is_unbiased is unbiased
    error = (found.log_normalizer - run.target.log_normalizer) / found.log_normalizer_se
    assert abs(error) < 5 if unbiased else error < -5


def test_a_target_called_smaller_than_it_is_would_be_noticed() -> None:
    """The bound of a Gaussian that has been found is so near that half a nat less is refuted."""
    run = trained(built("target=gaussian", "initial=full", "sampler=none", "objective=elbo", "optimizer.lr=0.03"), 600)
    found = approximation(run)
    assert run.target.log_normalizer is not None
    assert found.bound == pytest.approx(run.target.log_normalizer, abs=0.05)
    assert found.bound > run.target.log_normalizer - 0.5 + 5 * found.bound_se
    assert found.effective > 0.9


def test_a_good_sampler_has_a_small_error_of_log_z() -> None:
    words = ("initial.scale=1.5", "sampler=hmc", "sampler.num_leapfrog=3", "sampler.num_steps=6")
    path = ("sampler.acceptance=metropolis", "sampler.schedule=linear", "sampler.step_size=0.2", "objective=annealed")
    run = built("target=ring", *words, *path)
    found = approximation(run, 8000)
    assert run.target.log_normalizer is not None
    assert found.log_normalizer_se < 0.05
    assert abs(found.log_normalizer - run.target.log_normalizer) < 5 * found.log_normalizer_se


def test_the_start_and_the_end_of_the_chain_are_told_apart() -> None:
    words = ("sampler=hmc", "sampler.num_leapfrog=3", "sampler.num_steps=15", "sampler.step_size=0.5")
    found = approximation(built("target=gaussian", "target.correlation=0", "initial.mean=3", *words))
    assert found.initial.mean().item() == pytest.approx(3.0, abs=0.1)
    assert found.draws.mean().item() == pytest.approx(0.0, abs=0.2)


def flags_agree(positions: Tensor, proposals: Tensor, accepted: Tensor) -> bool:
    """Each move leads to its proposal if accepted, and nowhere if not."""
    led_to = torch.where(accepted[:, None], proposals, positions[:-1])
    return torch.equal(positions[1:], led_to)


@pytest.mark.parametrize("sampler", ["random_walk", "langevin", "hmc", "hmc_partial", "independent", "flow"])
def test_the_flags_of_a_walk_agree_with_its_positions(sampler: str) -> None:
    run = built("target=gaussian", "objective=none", f"sampler={sampler}", "sampler.step_size=1", "sampler.num_steps=2")
    walk = record_walk(run.sampler, chain_path(run.model, run.sampler), torch.zeros(2), 40)
    assert walk.positions.shape == (41, 2)
    assert walk.proposals.shape == (40, 2)
    assert walk.accepted.any()
    assert flags_agree(*walk)
    assert (walk.proposals != walk.positions[:-1]).any(1).all()
    if not walk.accepted.all():
        assert not flags_agree(walk.positions, walk.proposals, ~walk.accepted)
    image = walk_picture(run.target, walk)
    assert image.shape[0] == 3
    assert 0 <= image.min() < image.max() <= 1


def test_the_walk_of_unadjusted_steps_accepts_all() -> None:
    run = built("target=gaussian", "objective=none", "sampler=langevin", "sampler.acceptance=none")
    assert "another limit" in run.notes[0]
    walk = record_walk(run.sampler, chain_path(run.model, run.sampler), torch.zeros(2), 10)
    assert walk.accepted.all()
    assert flags_agree(*walk)


def test_a_picture_of_draws_differs_from_one_of_others() -> None:
    for target in (shipped("ring"), shipped("gaussian", dim=3), shipped("funnel", dim=2)):
        drawn = target.sample(500)
        assert drawn is not None
        for picture in (histograms, dots):
            first, second = picture(target, {"a": drawn}), picture(target, {"a": drawn + 0.3})
            assert first.shape == second.shape
            assert not torch.equal(first, second)
            assert torch.equal(first, picture(target, {"a": drawn}))
    assert histograms(target, dict.fromkeys("abcdef", drawn)).shape[1] > histograms(target, {"a": drawn}).shape[1]


OF_SAMPLER = {"none": "elbo", "hmc_tempered": "annealed"}


@pytest.mark.parametrize("sampler", ["none", "flow", "hmc", "hmc_partial", "hmc_tempered", "langevin", "random_walk"])
def test_every_target_trains_with_every_sampler(sampler: str) -> None:
    base = configuration("trainer.device=cpu", command="infer")
    objective = node("objective", OF_SAMPLER.get(sampler, "metvae"))
    for target in NAMES:
        config: dict[str, Any] = {**base, "target": node("target", target), "sampler": node("sampler", sampler)}
        run = trained(build_inference({**config, "objective": objective}, [], []), 2)
        found = approximation(run, 20)
        assert torch.isfinite(found.draws).all(), target
        assert all(torch.isfinite(parameter).all() for parameter in run.model.parameters())


def test_the_groups_are_those_of_the_configuration() -> None:
    assert set(GROUPS) <= configuration(command="infer").keys()


def test_more_dimensions() -> None:
    for target in ("gaussian", "eight_modes", "funnel"):
        run = built(f"target={target}", "target.dim=7", "sampler=hmc")
        found = approximation(trained(run, 2), 20)
        assert found.draws.shape[1] == 7
        assert chains_of(run, chains=2, chain_draws=5, warm_up=0)["chains/evaluations"] > 0
