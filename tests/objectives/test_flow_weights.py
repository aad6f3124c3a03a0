"""Log-weights of flows and of independent proposals: unbiased where they must be, and below where they must be."""

import math
from collections.abc import Callable

import pytest
import torch

from metvae_cli.bijections import Bijection
from metvae_cli.kernels.base import Proposal
from metvae_cli.kernels.flow import Coin, Flow, FlowProposals
from metvae_cli.kernels.independent import Independent, IndependentFlow
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.objectives.weights import Bookkeeping, WeightObjective
from metvae_cli.samplers.assembly import AcceptanceName, ScheduleName, make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from tests.kernels.cases import ForgottenCoin, GoesOn, NoJacobian, stir
from tests.objectives.linear_gaussian import LinearGaussian
from tests.thinned import thinned

pytestmark = pytest.mark.usefixtures("double")

X = torch.tensor([[0.9, -0.4, 1.1]], dtype=torch.float64)
CHAINS = 200_000
NUM_STEPS = 3
DIM, CONTEXT = 2, 4
NEAR, FAR = 0.25, 1.0  # how far from the identity: weights of flows that go far have heavy tails


def family(**options: object) -> list[Proposal]:
    made = FlowProposals(DIM, CONTEXT, NUM_STEPS, layers=2, hidden=(8,), **options)  # pyright: ignore
    proposals = made.proposals([StepSize(1.0)] * NUM_STEPS)
    for step, proposal in enumerate(proposals):
        assert isinstance(proposal, Flow)
        stir(proposal.bijection, seed=step, scale=NEAR)
    return proposals


def stirred(step: int, scale: float, kind: type[Bijection] = Bijection) -> Bijection:
    bijection = kind(DIM, 0, "realnvp", layers=2, hidden=(8,))
    stir(bijection, seed=step, scale=scale)
    return bijection


def independent_flows() -> list[Proposal]:
    proposals: list[Proposal] = [
        IndependentFlow(DIM, CONTEXT, hidden=(8,), condition_on_x=True) for _ in range(NUM_STEPS)
    ]
    for step, proposal in enumerate(proposals):
        stir(proposal, seed=step, scale=NEAR)
    return proposals


CHOICES: dict[str, Callable[[], list[Proposal]]] = {
    "coin": family,
    "biased_coin": lambda: family(coin_probability=0.7),
    "lifted": lambda: family(direction="lifted"),
    "frozen_noise": lambda: family(noise="frozen", condition_on_x=True),
    "fresh_noise_lifted": lambda: family(noise="fresh", condition_on_x=True, direction="lifted"),
    "affine": lambda: family(transform="affine", condition_on_x=True),
    "independent": lambda: [Independent() for _ in range(NUM_STEPS)],
    "independent_flow": independent_flows,
}
METHODS: list[tuple[Bookkeeping, AcceptanceName, ScheduleName]] = [
    ("path", "barker", "constant"),
    ("path", "barker", "linear"),
    ("path", "metropolis", "constant"),
    ("reversal", "barker", "linear"),
    ("reversal", "metropolis", "linear"),
    ("reversal", "none", "constant"),
]


def standard_score(
    proposals: list[Proposal], bookkeeping: Bookkeeping, acceptance: AcceptanceName, schedule: ScheduleName
) -> float:
    """How many standard errors the mean of w / p(x) over many chains lies above 1."""
    model = LinearGaussian(shift=0.2, widen=1.4)
    kernels = [make_kernel(proposal, acceptance) for proposal in proposals]
    sampler = Sampler(kernels, make_schedule(schedule, NUM_STEPS), precondition="encoder")
    with torch.no_grad():
        output = WeightObjective(bookkeeping, "mean", CHAINS)(model, sampler, X)
        weights = (output.log_weights[:, 0] - model.log_evidence(X)).exp()
    assert output.info.divergent.sum() == 0
    return float((weights.mean() - 1) / (weights.std() / math.sqrt(CHAINS)))


@pytest.mark.parametrize("method", METHODS, ids="-".join)
@pytest.mark.parametrize("choice", thinned(CHOICES, 2))
def test_weights_are_unbiased_or_below(choice: str, method: tuple[Bookkeeping, AcceptanceName, ScheduleName]) -> None:
    """E[w] = p(x), but for Metropolis decisions looked back on with a uniform r, where E[w] < p(x)."""
    bookkeeping, acceptance, schedule = method
    score = standard_score(CHOICES[choice](), bookkeeping, acceptance, schedule)
    if acceptance == "metropolis" and bookkeeping == "path":
        assert score < -5
    else:
        assert abs(score) < 5


@pytest.mark.parametrize(
    "method",
    [("path", "barker", "constant"), ("reversal", "none", "constant"), ("reversal", "none", "linear")],
    ids="-".join,
)
def test_a_flow_that_only_runs_forwards_is_unbiased(method: tuple[Bookkeeping, AcceptanceName, ScheduleName]) -> None:
    assert abs(standard_score(family(direction="forwards"), *method)) < 5


def test_a_flow_that_only_runs_forwards_is_refused_where_invariance_matters() -> None:
    kernels = [make_kernel(proposal, "barker") for proposal in family(direction="forwards")]
    sampler = Sampler(kernels, make_schedule("linear", NUM_STEPS))
    with pytest.raises(ValueError, match="no target invariant"):
        WeightObjective("reversal", "mean", 2).validate(sampler)
    assert WeightObjective("path", "mean", 2).validate(sampler) == []


def flows_without_jacobian(scale: float, coin: Coin | None) -> list[Proposal]:
    return [Flow(stirred(step, scale, NoJacobian), coin) for step in range(NUM_STEPS)]


@pytest.mark.parametrize(
    ("coin", "method"),
    [
        (Coin, ("path", "barker", "constant")),
        (Coin, ("reversal", "none", "constant")),
        (None, ("path", "barker", "constant")),
    ],
    ids=["coin-path", "coin-unadjusted", "lifted-path"],
)
def test_the_judge_rejects_a_missing_jacobian(
    coin: type[Coin] | None, method: tuple[Bookkeeping, AcceptanceName, ScheduleName]
) -> None:
    assert abs(standard_score(flows_without_jacobian(0.35, coin() if coin else None), *method)) > 5


NOT_INVARIANT: dict[str, Callable[[], list[Proposal]]] = {
    "no_jacobian": lambda: flows_without_jacobian(FAR, Coin()),
    "forgotten_coin": lambda: [Flow(stirred(step, FAR), ForgottenCoin(0.9)) for step in range(NUM_STEPS)],
    "goes_on": lambda: [GoesOn(stirred(0, FAR), None) for _ in range(NUM_STEPS)],
}


@pytest.mark.parametrize("mutant", NOT_INVARIANT)
def test_annealed_weights_need_steps_that_keep_their_target(mutant: str) -> None:
    assert abs(standard_score(NOT_INVARIANT[mutant](), "reversal", "metropolis", "linear")) > 5
