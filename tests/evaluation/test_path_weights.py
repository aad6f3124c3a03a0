"""Importance sampling over the sampler's own paths, against the known likelihood of the linear-Gaussian model."""

from collections.abc import Callable, Sequence

import pytest
import torch

from metvae_cli.bijections import Bijection
from metvae_cli.evaluation.importance import ImportanceEstimate, importance_sampling
from metvae_cli.evaluation.path_weights import chain_weights, flow_weights
from metvae_cli.kernels.base import Proposal
from metvae_cli.kernels.flow import Coin, Flow, Forwards
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.objectives.soundness import weights_are_unbiased
from metvae_cli.objectives.vcd import ContrastiveObjective
from metvae_cli.objectives.weights import Bookkeeping, WeightObjective
from metvae_cli.samplers.assembly import AcceptanceName, ScheduleName, make_kernel, make_schedule
from metvae_cli.samplers.chain import Decisions, Sampler
from tests.evaluation.linear_gaussian_data import data, frozen, numbered
from tests.kernels.cases import NoJacobian, NoKineticTerm, stir
from tests.objectives.linear_gaussian import LinearGaussian

pytestmark = pytest.mark.usefixtures("double")
MODEL = {"shift": 0.2, "widen": 1.3}


def flows(kind: type[Bijection] = Bijection, scale: float = 0.25) -> list[Proposal]:
    bijections = [kind(2, 0, "realnvp", layers=2, hidden=(8,)) for _ in range(2)]
    for step, bijection in enumerate(bijections):
        stir(bijection, seed=step, scale=scale)
    return [Flow(bijection, Forwards()) for bijection in bijections]


def hmc() -> list[Proposal]:
    return [Hamiltonian(StepSize(0.4), num_leapfrog=2) for _ in range(2)]


def langevin() -> list[Proposal]:
    return [Langevin(StepSize(0.1)) for _ in range(2)]


def sampler_of(
    proposals: Sequence[Proposal],
    acceptance: AcceptanceName,
    schedule: ScheduleName,
    decisions: Decisions = "sampled",
) -> Sampler:
    kernels = [make_kernel(proposal, acceptance) for proposal in proposals]
    return Sampler(kernels, make_schedule(schedule, len(kernels)), latent_dim=2, decisions=decisions)


def estimate(sampler: Sampler, bookkeeping: Bookkeeping, num_samples: int = 20_000) -> ImportanceEstimate:
    model = frozen(LinearGaussian(**MODEL))
    weigh = chain_weights(model, sampler, WeightObjective(bookkeeping, "mean", 2))
    return importance_sampling(model, numbered(data(30)), num_samples, weigh=weigh)


def largest_score(found: ImportanceEstimate) -> float:
    """How many standard errors an estimate of a datum lies off, the worst of all."""
    exact = LinearGaussian().log_evidence(data(30))
    return float(((found.per_datum - exact).abs() * found.effective_samples.sqrt()).max())


METHODS: dict[str, tuple[Callable[[], list[Proposal]], AcceptanceName, ScheduleName, Decisions, Bookkeeping]] = {
    "flow": (flows, "none", "constant", "sampled", "reversal"),
    "uncorrected_langevin": (langevin, "none", "linear", "sampled", "reversal"),
    "annealed_hmc": (hmc, "metropolis", "linear", "sampled", "reversal"),
    "metvae": (hmc, "barker", "constant", "sampled", "path"),
    "metvae_enumerated": (hmc, "barker", "constant", "enumerated", "path"),
    "metvae_stopped": (hmc, "barker", "linear", "stopped", "path"),
}


@pytest.mark.parametrize(
    "name", [name if name == "flow" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_the_estimate_is_right(name: str) -> None:
    make, acceptance, schedule, decisions, bookkeeping = METHODS[name]
    found = estimate(sampler_of(make(), acceptance, schedule, decisions), bookkeeping)
    assert found.effective_samples.min() > 500
    assert largest_score(found) < 5


@pytest.mark.slow
def test_paths_of_metropolis_decisions_fall_short_unless_they_are_looked_back_on_exactly() -> None:
    exact = LinearGaussian().log_evidence(data(30))
    sampler = sampler_of(hmc(), "metropolis", "constant")
    assert not weights_are_unbiased("path", "log_mean_exp", sampler)
    assert (estimate(sampler, "path").per_datum < exact - 0.1).all()


@pytest.mark.slow
def test_the_judge_rejects_a_flow_without_its_jacobian() -> None:
    assert largest_score(estimate(sampler_of(flows(NoJacobian, 0.6), "none", "constant"), "reversal")) > 10


@pytest.mark.slow
def test_the_judge_rejects_momenta_that_nothing_pays_for() -> None:
    silent: list[Proposal] = [NoKineticTerm(StepSize(0.6)) for _ in range(2)]
    assert largest_score(estimate(sampler_of(silent, "none", "constant"), "reversal")) > 10


def test_neither_the_company_nor_the_repetition_changes_a_number() -> None:
    sampler = sampler_of(hmc(), "barker", "constant")
    model = frozen(LinearGaussian(**MODEL))
    weigh = chain_weights(model, sampler, WeightObjective("path", "mean", 2))
    whole = importance_sampling(model, numbered(data(6)), 1100, weigh=weigh).per_datum
    assert torch.equal(whole, importance_sampling(model, numbered(data(6), 1), 1100, weigh=weigh, chunk=7).per_datum)
    other = importance_sampling(model, numbered(data(6)), 1100, weigh=weigh, repeat=1).per_datum
    assert (whole - other).abs().min() > 1e-6


def test_the_trained_sampler_stays_as_it_is() -> None:
    learned: list[Proposal] = [Hamiltonian(StepSize(0.4, "learned")) for _ in range(2)]
    sampler = sampler_of(learned, "barker", "constant").float()
    chain_weights(frozen(LinearGaussian()), sampler, WeightObjective("path", "mean", 2))
    parameters = list(sampler.parameters())
    assert len(parameters) == 2
    assert all(parameter.requires_grad and parameter.dtype is torch.float32 for parameter in parameters)


def test_only_plain_flows_are_taken_unasked() -> None:
    model, objective = frozen(LinearGaussian()), WeightObjective("reversal", "mean", 2)
    assert flow_weights(model, sampler_of(flows(), "none", "constant"), objective) is not None
    coins: list[Proposal] = [Flow(flow.bijection, Coin()) for flow in flows() if isinstance(flow, Flow)]
    others: list[tuple[list[Proposal], AcceptanceName]]
    others = [(coins, "none"), (flows(), "barker"), (hmc(), "none"), ([], "none")]
    for proposals, acceptance in others:
        assert flow_weights(model, sampler_of(proposals, acceptance, "constant"), objective) is None


def test_a_run_without_weighed_paths_is_refused() -> None:
    model, chain = frozen(LinearGaussian()), sampler_of(hmc(), "barker", "constant")
    for sampler, objective in (
        (Sampler([], make_schedule("constant", 0)), WeightObjective("none", "mean", 2)),
        (chain, ContrastiveObjective()),
    ):
        with pytest.raises(ValueError, match=r"importance\.proposal=auto"):
            chain_weights(model, sampler, objective)
