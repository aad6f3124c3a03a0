"""The score function's baselines, the skip rule and the copied decoder: unbiased where they are said to be."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.adaptation import Outcome
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.unadjusted import Unadjusted
from metvae_cli.objectives import functionals
from metvae_cli.objectives.baseline import RunningBaseline, credits_of_steps, running_score_term
from metvae_cli.objectives.fisher import FisherObjective
from metvae_cli.objectives.score_function import score_term
from metvae_cli.objectives.weights import Bookkeeping, WeightObjective
from metvae_cli.samplers.assembly import AcceptanceName, ScheduleName, make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from metvae_cli.scores import LogDensity
from tests.objectives.imposed import exact, package_estimate, parameters
from tests.objectives.linear_gaussian import LinearGaussian
from tests.objectives.oracle import Problem
from tests.objectives.test_enumeration import deviation

pytestmark = pytest.mark.usefixtures("double")
X = torch.tensor([[0.9, -0.4, 1.1]], dtype=torch.float64)


# -------------------------------------------------------------------- the running baseline


@pytest.mark.parametrize("bookkeeping", ["path", "reversal"])
@pytest.mark.parametrize("barker", [True, False])
def test_a_running_baseline_leaves_the_gradient_exact(
    bookkeeping: Bookkeeping, barker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it remembers: here numbers that no batch has set."""
    betas = (1.0, 1.0) if bookkeeping == "path" else (1 / 3, 2 / 3)
    problem = Problem("gaussian", "langevin", barker, bookkeeping, betas, (0.7, -1.1))  # pyright: ignore
    p = parameters(problem)

    def term(weights: Tensor, trajectory: object) -> Tensor:
        info = trajectory.info  # pyright: ignore
        increments = info.log_path if bookkeeping == "path" else info.log_reversal
        credit = credits_of_steps(weights, increments, trajectory.log_final, trajectory.initial.log_initial)  # pyright: ignore
        return running_score_term(credit, torch.tensor([0.7, -0.3]), info.log_alpha)

    value, gradient = package_estimate(problem, p, functionals.mean, monkeypatch, score=term)
    expected_value, expected = exact(problem, p, functionals.mean)
    assert abs(value - expected_value) < 1e-10
    assert deviation(gradient, expected) < 1e-9


def test_a_credit_leaves_out_what_came_before() -> None:
    """Written out for two steps."""
    weights, increments = torch.tensor([[5.0]]), torch.tensor([[[0.3]], [[-0.2]]])
    log_final, log_initial = torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[0.5]])
    found = credits_of_steps(weights, increments, log_final, log_initial)
    assert torch.allclose(found.flatten(), torch.tensor([5 - (1 - 0.5), 5 - (2 - 0.5 + 0.3)]))


def test_a_running_baseline_follows_the_credit_and_passes_over_nan() -> None:
    baseline = RunningBaseline(2)
    probability, z = torch.ones(2, 1, 1), torch.zeros(1, 1, 1)
    for _ in range(3):
        baseline.update(Outcome(probability, z, credit=torch.tensor([4.0, -2.0])))
    assert torch.allclose(baseline.mean, torch.tensor([4.0, -2.0]))
    baseline.update(Outcome(probability, z, credit=torch.tensor([torch.nan, 0.0])))
    baseline.update(Outcome(probability, z))
    assert torch.allclose(baseline.mean, torch.tensor([4.0, -2.0]))
    for _ in range(200):
        baseline.update(Outcome(probability, z, credit=torch.tensor([0.0, 1.0])))
    assert torch.allclose(baseline.mean, torch.tensor([0.0, 1.0]), atol=1e-6)


@pytest.mark.parametrize("num_samples", [1, 2])
def test_a_running_baseline_lowers_the_variance(num_samples: int) -> None:
    """Of the gradient of the step size: against none, and with one chain per datum."""
    spread = {}
    for baseline in ("running", "none"):
        torch.manual_seed(1)
        kernels = [MetropolisHastings(Hamiltonian(StepSize(0.6, "learned")), Acceptance.BARKER) for _ in range(3)]
        sampler = Sampler(kernels, make_schedule("constant", 3), latent_dim=2)
        objective = WeightObjective("path", "mean", num_samples, baseline=baseline, num_steps=3)  # pyright: ignore
        objective.validate(sampler)
        rows = []
        for _ in range(60):
            output = objective(LinearGaussian(0.2, 1.4), sampler, X.expand(200, 3))
            rows.append(torch.stack(torch.autograd.grad(output.loss, list(sampler.parameters()))))
            for adaptation in objective.adaptations:
                adaptation.update(output.outcome)
        spread[baseline] = torch.stack(rows)[10:].var(0)
    assert (spread["running"] < 0.2 * spread["none"]).all()


def test_a_running_baseline_is_for_single_chains() -> None:
    sampler = Sampler([make_kernel(Langevin(StepSize(0.1)), "barker")], make_schedule("constant", 1))
    assert WeightObjective("path", "mean", 1, baseline="running", num_steps=1).validate(sampler) == []
    with pytest.raises(ValueError, match=r"objective\.baseline=leave_one_out"):
        WeightObjective("path", "log_mean_exp", 3, baseline="running", num_steps=1).validate(sampler)


def test_without_a_baseline_the_term_is_that_of_the_whole_bound() -> None:
    weights, log_alpha = torch.randn(3, 4), torch.randn(2, 3, 4)
    found = score_term(functionals.mean, weights, log_alpha, leave_one_out=False)
    assert torch.allclose(found, (weights.mean(0) * log_alpha.sum(0)).sum(0))


# -------------------------------------------------------------------- the skip rule


class OneSided(Unadjusted):
    """The rule of arXiv 2106.15921: stay where the ratio is small, whatever it is on the way back."""

    def step(self, point, path, beta, *, create_graph):
        moved, info = super().step(point, path, beta, create_graph=create_graph)
        small = info.metropolis_prob <= SKIP
        kept = type(point)(*(None if a is None else torch.where(_like(small, a), a, b) for a, b in zip(point, moved)))  # noqa: B905  # pyright: ignore
        return kept, info._replace(log_reversal=torch.where(small, 0.0, info.log_reversal))


SKIP = 0.3


def _like(chosen: Tensor, values: Tensor) -> Tensor:
    return chosen[..., None] if values.dim() > chosen.dim() else chosen


@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize("wrong", [False, True])
def test_skipping_in_pairs_is_unbiased_and_skipping_one_way_is_not(schedule: ScheduleName, wrong: bool) -> None:
    kernels = [
        OneSided(Langevin(StepSize(0.35))) if wrong else Unadjusted(Langevin(StepSize(0.35)), SKIP) for _ in range(3)
    ]
    model = LinearGaussian(0.4, 1.4)
    sampler = Sampler(kernels, make_schedule(schedule, 3), latent_dim=2)
    with torch.no_grad():
        output = WeightObjective("reversal", "mean", 200_000)(model, sampler, X)
    weights = (output.log_weights[:, 0] - model.log_evidence(X)).exp()
    score = (weights.mean() - 1) / (weights.std() / math.sqrt(len(weights)))
    taken = output.info.accepted.double().mean()
    assert (abs(score) > 5) == wrong
    assert wrong or 0.05 < taken < 0.95  # both happen


# -------------------------------------------------------------------- the copied decoder


class TwoLines(nn.Module):
    """z ~ N(0, 1), x | z ~ N(slope z, 0.7^2); the copy has another slope. q is a fixed normal."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.copied = nn.Parameter(torch.tensor(1.3)), nn.Parameter(torch.tensor(0.8))

    def posterior(self, x: Tensor) -> Independent:
        return Independent(Normal(torch.full((len(x), 1), 0.3), torch.full((len(x), 1), 0.8)), 1)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        return self._joint(x, self.slope)

    def clone_joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        return self._joint(x, self.copied)

    def _joint(self, x: Tensor, slope: Tensor) -> LogDensity:
        return lambda z: (Normal(0.0, 1.0).log_prob(z) + Normal(slope * z, 0.7).log_prob(x)).sum(-1)

    def log_evidence(self, x: Tensor, slope: Tensor) -> Tensor:
        return Normal(0.0, (slope**2 + 0.49).sqrt()).log_prob(x).sum(-1)


CLONED: list[tuple[Bookkeeping, AcceptanceName, ScheduleName]] = [
    ("reversal", "none", "linear"),
    ("reversal", "metropolis", "linear"),
    ("reversal", "barker", "linear"),
    ("path", "barker", "constant"),
]
ONE = torch.tensor([[1.1]], dtype=torch.float64)


def cloned_sampler(acceptance: AcceptanceName, schedule: ScheduleName) -> Sampler:
    kernels = [make_kernel(Langevin(StepSize(0.3)), acceptance) for _ in range(3)]
    return Sampler(kernels, make_schedule(schedule, 3), clones=True)


@pytest.mark.parametrize(("bookkeeping", "acceptance", "schedule"), CLONED)
def test_moving_on_a_copy_bounds_the_likelihood_of_the_model(
    bookkeeping: Bookkeeping, acceptance: AcceptanceName, schedule: ScheduleName
) -> None:
    """E[w] = p(x) of the model; not that of the copy, nor what lies between (the published weight of A-MCVAE)."""
    model, sampler = TwoLines(), cloned_sampler(acceptance, schedule)
    with torch.no_grad():
        output = WeightObjective(bookkeeping, "mean", 400_000)(model, sampler, ONE)
    scores = []
    for slope in (model.slope.detach(), model.copied.detach()):
        weights = (output.log_weights[:, 0] - model.log_evidence(ONE, slope)).exp()
        scores.append(float((weights.mean() - 1) / (weights.std() / math.sqrt(len(weights)))))
    assert abs(scores[0]) < 5 < abs(scores[1])
    assert output.evaluations == 400_000 * sampler.evaluations == 400_000 * (1 + 3 + 1)
    assert torch.equal(output.final.log_final, model.joint(ONE)(output.final.z))


@pytest.mark.parametrize(("bookkeeping", "acceptance", "schedule"), CLONED)
def test_the_decoder_learns_from_the_last_weight_alone(
    bookkeeping: Bookkeeping, acceptance: AcceptanceName, schedule: ScheduleName
) -> None:
    model, sampler = TwoLines(), cloned_sampler(acceptance, schedule)
    output = WeightObjective(bookkeeping, "mean", 50)(model, sampler, ONE)
    found, copied = torch.autograd.grad(-output.loss, [model.slope, model.copied])
    (expected,) = torch.autograd.grad(model.joint(ONE)(output.final.z).mean(), [model.slope])
    assert torch.allclose(found, expected)
    assert copied.abs() > 0


def test_a_copy_is_refused_where_the_posterior_is_needed() -> None:
    with pytest.raises(ValueError, match=r"sampler\.cloned_decoder=false"):
        FisherObjective(1).validate(cloned_sampler("metropolis", "constant"))
