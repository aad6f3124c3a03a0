"""The exact reverse distribution on models whose likelihood is known: unbiased, tight, better than any other."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Beta, Point
from metvae_cli.kernels.base import Proposal, Proposed, Refreshed
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.partial_hamiltonian import PartialHamiltonian
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.objectives.weights import WeightObjective, make_path
from metvae_cli.samplers.assembly import AcceptanceName, assemble_sampler, make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.exact_reverse import Exact
from metvae_cli.samplers.reverse import Reverse
from tests.kernels.cases import EVERY_CASE, EVERY_CASE_ID, AnyCase, Case
from tests.objectives.linear_gaussian import LinearGaussian

pytestmark = pytest.mark.usefixtures("double")
X = torch.tensor([[0.9, -0.4, 1.1]], dtype=torch.float64)
NUM_STEPS = 3
PARTIAL = [
    Case(
        f"partial_{noise}_{turn}",
        lambda step_size, noise=noise, turn=turn: PartialHamiltonian(step_size, 2, 0.8, noise=noise, turn=turn),
        0.4,
    )
    for noise, turn in itertools.product(("averaged", "fixed"), ("rejection", "acceptance"))
]
CASES = (*EVERY_CASE, *PARTIAL)
IDS = [*EVERY_CASE_ID, *(case.name for case in PARTIAL)]
RULES: tuple[AcceptanceName, ...] = ("metropolis", "barker")


def sampler_of(proposals: list[Proposal], acceptance: AcceptanceName, reverse: Reverse | None) -> Sampler:
    kernels = [make_kernel(proposal, acceptance) for proposal in proposals]
    return Sampler(kernels, make_schedule("constant", len(kernels)), latent_dim=2, reverse=reverse)


def log_ratios(sampler: Sampler, model: LinearGaussian, chains: int) -> Tensor:
    """log w - log p(x) of many chains."""
    with torch.no_grad():
        return WeightObjective("path", "mean", chains)(model, sampler, X).log_weights[:, 0] - model.log_evidence(X)


@pytest.mark.parametrize("acceptance", RULES)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_at_the_posterior_the_weight_does_not_vary(case: AnyCase, acceptance: AcceptanceName) -> None:
    """A chain that starts in the posterior stays there, so that its end tells nothing more: w = p(x) for each chain.

    It need not be so where the noise is held fixed: a chain is not in the posterior then for each value of the noise.
    """
    proposals = [case.proposal() for _ in range(NUM_STEPS)]
    ratios = log_ratios(sampler_of(proposals, acceptance, Exact()), LinearGaussian(), 500)
    assert (ratios.abs().max() < 1e-9) == ("fixed" not in case.name)


@pytest.mark.parametrize("acceptance", RULES)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_unbiased_and_tighter_than_a_guess(case: AnyCase, acceptance: AcceptanceName) -> None:
    model = LinearGaussian(shift=0.2, widen=1.3)
    means, errors = [], []
    for reverse in (None, Exact()):
        proposals = [case.proposal() for _ in range(NUM_STEPS)]
        ratios = log_ratios(sampler_of(proposals, acceptance, reverse), model, 40_000)
        means.append(ratios.mean())
        errors.append(ratios.std() / math.sqrt(len(ratios)))
    assert means[1] > means[0] + 5 * (errors[0].square() + errors[1].square()).sqrt()
    assert means[1] < 5 * errors[1]
    weights = ratios.exp()  # those of the exact one
    assert abs(weights.mean() - 1) < 5 * weights.std() / math.sqrt(len(weights))


class ForwardNoise(Langevin):
    """Looks back with the noise that led here in place of the one that leads back."""

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        proposed = super().propose(point, path, beta, create_graph=create_graph, noise=noise)
        return proposed._replace(noise_back=proposed.noise)


class Straight(Hamiltonian):
    """Looks back without turning the momentum."""

    def propose(
        self, point: Point, path: AnnealedPath, beta: Beta, *, create_graph: bool, noise: Tensor | None = None
    ) -> Proposed:
        proposed = super().propose(point, path, beta, create_graph=create_graph, noise=noise)
        assert proposed.noise_back is not None
        return proposed._replace(noise_back=-proposed.noise_back)


class Unmixed(PartialHamiltonian):
    """Does not undo the refreshment."""

    def unrefresh(self, point: Point, noise: Tensor | None) -> Refreshed:
        return Refreshed(point)


def gone_back(proposal: Proposal) -> bool:
    """Whether one step, undone with the decision that was taken, leads to where it came from, at the same price."""
    model = LinearGaussian(shift=0.2, widen=1.3)
    sampler = sampler_of([proposal], "barker", Exact())
    posterior, kernel = model.posterior(X), sampler.steps[0]
    path = make_path(posterior, posterior.log_prob, model.joint(X), sampler)
    assert isinstance(kernel, MetropolisHastings)
    with torch.no_grad():
        trajectory = sampler(posterior.rsample((200,)), path, create_graph=False)
        assert trajectory.noise[0] is not None
        end = trajectory.final, trajectory.noise[0], path, torch.tensor(1.0)
        stayed, moved = kernel.retrace(*end, create_graph=False)
    accepted = trajectory.info.accepted[0]
    assert torch.where(accepted, moved.possible, stayed.possible).all()
    found = torch.where(accepted[..., None], moved.point.z, stayed.point.z)
    increment = torch.where(accepted, moved.increment, stayed.increment)
    return torch.allclose(found, trajectory.initial.z, atol=1e-9) and torch.allclose(
        increment, trajectory.info.log_path[0], atol=1e-8
    )


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_what_is_retraced_is_where_it_came_from(case: AnyCase) -> None:
    assert gone_back(case.proposal())


@pytest.mark.parametrize(
    "wrong", [ForwardNoise(StepSize(0.35)), Straight(StepSize(1.0)), Unmixed(StepSize(0.4), 2, 0.8, noise="fixed")]
)
def test_looking_back_wrongly_is_seen(wrong: Proposal) -> None:
    assert not gone_back(wrong)


def test_the_cost_is_what_is_said() -> None:
    for case, num_steps in itertools.product((CASES[0], CASES[3]), (1, 2, 4)):
        proposals = [case.proposal() for _ in range(num_steps)]
        sampler = sampler_of(proposals, "barker", Exact())
        output = WeightObjective("path", "mean", 3)(LinearGaussian(), sampler, X)
        moves = num_steps + 2**num_steps - 1
        assert output.evaluations == 3 * sampler.evaluations == 3 * (1 + moves * proposals[0].evaluations)


@pytest.mark.parametrize("acceptance", RULES)
def test_steps_far_too_long_are_rejected_and_leave_the_gradient_finite(acceptance: AcceptanceName) -> None:
    """In single precision: where histories could have come from overflows, and they have no mass."""
    torch.set_default_dtype(torch.float32)
    for size in (1e3, 1e4, 1e6):
        proposals: list[Proposal] = [Hamiltonian(StepSize(size, "learned"), 2) for _ in range(NUM_STEPS)]
        sampler = sampler_of(proposals, acceptance, Exact())
        output = WeightObjective("path", "mean", 20)(LinearGaussian(0.2, 1.3), sampler, X.float())
        gradients = torch.autograd.grad(output.loss, list(sampler.parameters()))
        assert torch.isfinite(output.log_weights).all()
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("widen", [1e-2, 1e-4, 1e-7])
def test_a_narrow_start_is_never_worth_more_than_the_evidence(widen: float, dtype: torch.dtype) -> None:
    """A chain leaves q within a step, and is taken back to it: where it went in between q has next to no mass."""
    torch.set_default_dtype(dtype)
    sampler = sampler_of([Hamiltonian(StepSize(0.5)), Hamiltonian(StepSize(0.5))], "barker", Exact())
    model = LinearGaussian(widen=widen)
    with torch.no_grad():
        log_weights = WeightObjective("path", "mean", 20_000)(model, sampler, X.to(dtype)).log_weights[:, 0]
    ratios = log_weights - model.log_evidence(X.to(dtype))
    assert ratios.exp().mean() < 1 + 5 * ratios.exp().std() / math.sqrt(len(ratios))
    assert ratios.max() < 20


def hamiltonians(step_sizes: Sequence[StepSize]) -> list[Proposal]:
    return [Hamiltonian(step_size) for step_size in step_sizes]


def test_too_many_steps_are_refused() -> None:
    def make(num_steps: int) -> Sampler:
        return assemble_sampler(2, hamiltonians, num_steps, "barker", reverse="exact")

    assert make(5).reverse.is_exact
    with pytest.raises(ValueError, match="at most 5; set reverse=learned"):
        make(6)
