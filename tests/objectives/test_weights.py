"""Log-weights: unbiased where they must be, below where they must be, and bounds on the linear-Gaussian model."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from metvae_cli.kernels.step_size import StepSize
from metvae_cli.objectives.weights import Bookkeeping, FunctionalName, WeightObjective
from metvae_cli.samplers.assembly import AcceptanceName, ScheduleName, make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from tests.kernels.cases import CASES, Case
from tests.objectives.linear_gaussian import LinearGaussian
from tests.thinned import thinned

pytestmark = pytest.mark.usefixtures("double")

X = torch.tensor([[0.9, -0.4, 1.1]], dtype=torch.float64)
CHAINS = 200_000
NUM_STEPS = 3


def make_sampler(case: Case, acceptance: AcceptanceName, schedule: ScheduleName, scale: float = 0.4) -> Sampler:
    kernels = [make_kernel(case.make(StepSize(scale * case.step_size)), acceptance) for _ in range(NUM_STEPS)]
    return Sampler(kernels, make_schedule(schedule, NUM_STEPS))


def normalised_weights(model: LinearGaussian, sampler: Sampler, bookkeeping: Bookkeeping) -> Tensor:
    """w / p(x) of many chains of one datum; their mean must be 1."""
    with torch.no_grad():
        output = WeightObjective(bookkeeping, "mean", CHAINS)(model, sampler, X)
    return (output.log_weights[:, 0] - model.log_evidence(X)).exp()


def standard_score(weights: Tensor) -> float:
    """How many standard errors the mean lies above 1."""
    return float((weights.mean() - 1) / (weights.std() / math.sqrt(len(weights))))


SOUND = [
    (case, acceptance, schedule, bookkeeping)
    for case, acceptance, schedule, bookkeeping in itertools.product(
        CASES, ("none", "barker", "metropolis"), ("constant", "linear"), ("reversal", "path")
    )
    if bookkeeping == "reversal" or acceptance != "none"
]


def name_of(row: tuple[Case, str, str, str]) -> str:
    return "-".join([row[0].name, *row[1:]])


@pytest.mark.parametrize("row", thinned(SOUND, 2), ids=name_of)
def test_weights_are_unbiased_or_below(row: tuple[Case, AcceptanceName, ScheduleName, Bookkeeping]) -> None:
    """E[w] = p(x), but for Metropolis decisions looked back on with a uniform r, where E[w] < p(x)."""
    case, acceptance, schedule, bookkeeping = row
    model = LinearGaussian(shift=0.2, widen=1.4)
    score = standard_score(normalised_weights(model, make_sampler(case, acceptance, schedule), bookkeeping))
    if acceptance == "metropolis" and bookkeeping == "path":
        assert score < -5
    else:
        assert abs(score) < 5


WRONG_CORRECTION = {"no_correction", "no_kinetic_term"}
WITH_CORRECTION = [case for case in CASES if WRONG_CORRECTION & set(case.mutants)]


@pytest.mark.parametrize("case", WITH_CORRECTION, ids=lambda case: case.name)
def test_the_judge_rejects_wrong_proposals(case: Case) -> None:
    """A missing log_correction biases the weights. (A wrong move that is still a bijection does not.)

    Small steps, so that the wrong weights have a variance and their bias is seen.
    """
    model = LinearGaussian(shift=0.2, widen=1.4)
    for name in WRONG_CORRECTION & set(case.mutants):
        wrong = Case(name, case.mutants[name], case.step_size)
        sampler = make_sampler(wrong, "none", "linear", scale=0.15)
        assert abs(standard_score(normalised_weights(model, sampler, "reversal"))) > 5, name


def test_the_judge_rejects_a_forgotten_reverse_distribution() -> None:
    model = LinearGaussian(shift=0.2, widen=1.4)
    weights = normalised_weights(model, make_sampler(CASES[1], "barker", "constant"), "path")
    assert abs(standard_score(weights)) < 5
    assert standard_score(weights * 2**NUM_STEPS) > 5


METHODS: list[tuple[Bookkeeping, AcceptanceName, ScheduleName]] = [
    ("path", "barker", "constant"),
    ("path", "metropolis", "constant"),
    ("reversal", "none", "linear"),
    ("reversal", "metropolis", "linear"),
    ("reversal", "barker", "linear"),
]


@pytest.mark.parametrize("functional", ["mean", "log_mean_exp"])
@pytest.mark.parametrize("method", METHODS, ids="-".join)
@pytest.mark.parametrize("case", thinned(CASES, 2), ids=lambda case: case.name)
def test_bounds_stay_below_the_log_likelihood(
    case: Case, method: tuple[Bookkeeping, AcceptanceName, ScheduleName], functional: FunctionalName
) -> None:
    bookkeeping, acceptance, schedule = method
    model = LinearGaussian(shift=0.2, widen=1.4)
    x = X.expand(40_000, 3)
    with torch.no_grad():
        bound = WeightObjective(bookkeeping, functional, 4)(model, make_sampler(case, acceptance, schedule), x).bound
    gap = model.log_evidence(X)[0] - bound
    assert gap.mean() > -5 * gap.std() / math.sqrt(len(gap))
    assert gap.mean() > 0.01  # q is poor here, so the bound is strictly below


def test_plain_bounds_are_exact_at_the_posterior() -> None:
    """q = p(z | x): the weight is p(x) whatever z is."""
    model, sampler = LinearGaussian(), Sampler([], make_schedule("constant", 0))
    for functional in ("mean", "log_mean_exp"):
        output = WeightObjective("none", functional, 5)(model, sampler, X.expand(100, 3))
        assert (output.log_weights - model.log_evidence(X)).abs().max() < 1e-9
        assert (output.bound - model.log_evidence(X)).abs().max() < 1e-9


@pytest.mark.parametrize("rule", ["metropolis", "barker"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_annealed_weights_are_exact_at_the_posterior(case: Case, rule: AcceptanceName) -> None:
    """With adjusted steps every density on the path is then the posterior, and the weight telescopes to p(x)."""
    model = LinearGaussian()
    output = WeightObjective("reversal", "mean", 2)(model, make_sampler(case, rule, "linear"), X.expand(100, 3))
    assert (output.log_weights - model.log_evidence(X)).abs().max() < 1e-9


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_metvae_meets_the_log_likelihood_in_the_limit(case: Case) -> None:
    """q = p(z | x) and a vanishing step: Barker decides by a fair coin, which is what r guesses."""
    model = LinearGaussian()
    gaps = []
    for scale in (1.0, 1e-4):
        sampler = make_sampler(case, "barker", "constant", scale=scale)
        with torch.no_grad():
            bound = WeightObjective("path", "mean", 2)(model, sampler, X.expand(20_000, 3)).bound
        gaps.append(float(model.log_evidence(X)[0] - bound.mean()))
    assert abs(gaps[1]) < 1e-4
    assert gaps[0] > 1e-2


def test_a_bound_of_more_samples_is_tighter() -> None:
    model, sampler = LinearGaussian(shift=0.3, widen=1.3), Sampler([], make_schedule("constant", 0))
    bounds = []
    for samples in (1, 2, 5, 20, 100):
        with torch.no_grad():
            bounds.append(
                WeightObjective("none", "log_mean_exp", samples)(model, sampler, X.expand(20_000, 3)).bound.mean()
            )
    assert all(later > earlier for earlier, later in itertools.pairwise(bounds))
    assert 0 < float(model.log_evidence(X)[0] - bounds[-1]) < 0.01
