"""The objective as the trainer calls it: its gradient in expectation, its cost, its limits, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from numpy.polynomial.hermite import hermgauss
from torch import Tensor
from torch.distributions import Independent, Normal

from benchmarks.contenders import latents_decoded
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.encoders import MLPEncoder
from metvae_cli.models.likelihoods import BernoulliLikelihood
from metvae_cli.models.priors import StandardNormal
from metvae_cli.models.vae import VAE
from metvae_cli.objectives import functionals
from metvae_cli.objectives.functionals import without_each
from metvae_cli.objectives.weights import Bookkeeping, FunctionalName, WeightObjective
from metvae_cli.samplers.assembly import AcceptanceName, ScheduleName, make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.reverse import Learned
from metvae_cli.scores import LogDensity
from tests.kernels.cases import CASE_IDS, CASES, Case
from tests.objectives.oracle import Parameters, Problem, expectation


def make_model(latent_dim: int = 3) -> VAE:
    shape = (1, 4, 4)
    return VAE(
        StandardNormal(latent_dim),
        MLPEncoder(shape, latent_dim, hidden=(8,)),
        MLPDecoder(latent_dim, shape, hidden=(8,)),
        BernoulliLikelihood(),
    )


def make_sampler(
    case: Case, acceptance: AcceptanceName, schedule: ScheduleName, num_steps: int = 3, scale: float = 0.3
) -> Sampler:
    steps = [StepSize(scale * case.step_size, "learned") for _ in range(num_steps)]
    return Sampler([make_kernel(case.make(step), acceptance) for step in steps], make_schedule(schedule, num_steps))


def data(count: int = 7) -> Tensor:
    return torch.bernoulli(torch.full((count, 1, 4, 4), 0.4))


class OwnDecoder(MLPDecoder):
    """One that the closed form of a score does not know."""


@pytest.mark.parametrize("decoder", [MLPDecoder, OwnDecoder])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("acceptance", ["metropolis", "barker", "none"])
@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_decoder_evaluations_are_what_the_method_needs(
    case: Case, acceptance: AcceptanceName, training: bool, decoder: type[MLPDecoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 + K passes (1 + K * leapfrogs for HMC), each of S * B vectors; gradients in z only for kernels with scores.

    They are taken by autograd only where there is no closed form: once per pass, since that of q has one.
    """
    model, sampler = make_model(), make_sampler(case, acceptance, "linear")
    model.decoder = decoder(3, (1, 4, 4), hidden=(8,))
    gradients: list[int] = []
    real_grad = torch.autograd.grad

    def counted(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        gradients.append(1)
        return real_grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    with torch.set_grad_enabled(training), latents_decoded(model.decoder) as passes:
        output = WeightObjective("reversal", "mean", 2)(model, sampler, data())
    leapfrogs = {"hmc_1": 1, "hmc_4": 4}.get(case.name, 1)
    assert [len(z) for z in passes] == [14] * (1 + 3 * leapfrogs)
    assert output.evaluations == 14 * len(passes)
    assert sampler.evaluations == len(passes)
    by_autograd = decoder is OwnDecoder and case.name != "random_walk"
    assert len(gradients) == (len(passes) if by_autograd else 0)


def test_evaluation_keeps_no_graph() -> None:
    model, sampler = make_model(), make_sampler(CASES[2], "barker", "constant")
    with torch.no_grad():
        output = WeightObjective("path", "mean", 2)(model, sampler, data())
    assert not output.loss.requires_grad
    assert output.score_loss is None


@pytest.mark.parametrize("functional", ["mean", "log_mean_exp"])
@pytest.mark.parametrize("bookkeeping", ["path", "reversal"])
def test_no_step_is_bitwise_the_plain_bound(bookkeeping: Bookkeeping, functional: FunctionalName) -> None:
    model, x = make_model(), data()
    results = []
    ways: list[Bookkeeping] = [bookkeeping, "none"]
    for one in ways:
        torch.manual_seed(3)
        model.zero_grad()
        objective = WeightObjective(one, functional, 2)
        output = objective(model, Sampler([], make_schedule("constant", 0)), x)
        output.loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((output.loss, output.bound, gradient))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_plain_bound_is_written_out() -> None:
    model, x = make_model(), data()
    torch.manual_seed(3)
    output = WeightObjective("none", "mean", 2)(model, Sampler([], make_schedule("constant", 0)), x)
    torch.manual_seed(3)
    q = model.posterior(x)
    z = q.rsample((2,))
    prior = Independent(Normal(torch.zeros(3), torch.ones(3)), 1).log_prob(z)
    expected = (model.decode(z).log_prob(x) + prior - q.log_prob(z)).mean(0)
    assert torch.allclose(output.bound, expected, rtol=1e-5)
    assert torch.allclose(output.loss, -expected.mean(), rtol=1e-5)


def test_the_value_of_the_loss_is_the_bound() -> None:
    model, sampler = make_model(), make_sampler(CASES[2], "barker", "constant")
    output = WeightObjective("path", "mean", 3)(model, sampler, data())
    assert torch.equal(output.loss, -output.bound.mean())


class Toy:
    """The oracle's one-dimensional problem as a model."""

    def __init__(self, problem: Problem, p: Parameters) -> None:
        self.problem, self.p = problem, p

    def posterior(self, x: Tensor) -> Independent:
        scale = self.p.log_scale.exp().expand(len(x), 1)
        return Independent(Normal(self.p.mean.expand(len(x), 1), scale), 1)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        return lambda z: self.problem.log_joint(z[..., 0], self.p)


@pytest.mark.parametrize("barker", [True, False])
def test_the_mean_of_drawn_gradients_is_exact(double: None, barker: bool) -> None:
    """Nothing imposed: 800 000 chains that draw their decisions, against the oracle with u on quadrature nodes too."""
    rule, step = Acceptance.BARKER if barker else Acceptance.METROPOLIS, torch.tensor(0.0, requires_grad=True)
    mean, log_scale, slope, offset = (torch.tensor(value, requires_grad=True) for value in (0.3, -0.2, 1.3, -0.4))
    p = Parameters(mean, log_scale, slope, offset, [step])
    roots, weights = (torch.tensor(a) for a in hermgauss(60))
    start, noise = (2**0.5 * torch.cartesian_prod(roots, roots)).T
    chance = torch.cartesian_prod(weights, weights).prod(-1) / math.pi
    problem = Problem("gaussian", "hmc_1", barker, "path", (1.0,), (noise,))
    expected = torch.stack(torch.autograd.grad(expectation(problem, p, start, chance), p.all()))

    kernel = MetropolisHastings(Hamiltonian(StepSize(1.0, "learned")), rule)
    step_size = kernel.proposal.step_size
    assert isinstance(step_size, StepSize)
    del step_size.log_value
    step_size.log_value = step
    sampler = Sampler([kernel], make_schedule("constant", 1))
    full, pathwise = [], []
    for _ in range(20):
        output = WeightObjective("path", "mean", 2)(Toy(problem, p), sampler, torch.zeros(20_000, 1))
        assert output.score_loss is not None
        score = torch.autograd.grad(-output.score_loss, p.all(), retain_graph=True)
        full.append(torch.stack(torch.autograd.grad(-output.loss, p.all())))
        pathwise.append(full[-1] - torch.stack(score))
    found, wrong = torch.stack(full), torch.stack(pathwise)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - expected) / error).abs().max() < 5
    if not barker:  # Barker's probabilities hardly move with HMC: the missing term is too small for this judge
        assert ((wrong.mean(0) - expected) / error).abs().max() > 5


@pytest.mark.parametrize("functional", [functionals.mean, functionals.log_mean_exp])
def test_leaving_one_out(functional: functionals.Functional) -> None:
    weights = torch.randn(4, 3)
    expected = torch.stack([functional(torch.cat([weights[:i], weights[i + 1 :]]), 0) for i in range(4)])
    assert torch.allclose(without_each(functional, weights), expected)


@pytest.mark.parametrize(
    ("bookkeeping", "acceptance", "schedule", "num_samples", "remedy"),
    [
        ("none", "barker", "constant", 1, "sampler=none"),
        ("path", "none", "constant", 2, "sampler.acceptance=barker"),
        ("reversal", "barker", "constant", 2, "sampler.schedule=linear"),
        ("path", "barker", "constant", 1, "objective.num_samples=2"),
        ("reversal", "metropolis", "linear", 1, "objective.num_samples=2"),
    ],
)
def test_unsound_and_pointless_combinations_are_refused(
    bookkeeping: Bookkeeping, acceptance: AcceptanceName, schedule: ScheduleName, num_samples: int, remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        WeightObjective(bookkeeping, "mean", num_samples).validate(make_sampler(CASES[1], acceptance, schedule))


@pytest.mark.parametrize("bookkeeping", ["path", "reversal"])
def test_a_chain_objective_without_a_chain_is_refused(bookkeeping: Bookkeeping) -> None:
    with pytest.raises(ValueError, match="objective=elbo"):
        WeightObjective(bookkeeping, "mean", 2).validate(Sampler([], make_schedule("constant", 0)))


def test_a_learned_reverse_that_would_not_be_used_is_refused() -> None:
    kernels = make_sampler(CASES[1], "metropolis", "linear").steps
    sampler = Sampler(kernels, make_schedule("linear", 3), reverse=Learned(3, 6, 3, (8,)))
    with pytest.raises(ValueError, match=r"sampler\.reverse=uniform"):
        WeightObjective("reversal", "mean", 2).validate(sampler)
    assert WeightObjective("path", "mean", 2).validate(sampler) == []


def test_notes() -> None:
    none = Sampler([], make_schedule("constant", 0))
    assert "is the ELBO" in WeightObjective("none", "log_mean_exp", 1).validate(none)[0]
    barker = make_sampler(CASES[1], "barker", "constant")
    drawn = WeightObjective("path", "log_mean_exp", 1, baseline="none").validate(barker)[0]
    assert "functional=mean" in drawn
    assert "stops are counted with sampler=hmc_stopped" in drawn
    note = WeightObjective("path", "mean", 2).validate(make_sampler(CASES[1], "metropolis", "constant"))[0]
    assert f"{3 * math.log(2):.2f} nats" in note
    assert WeightObjective("path", "mean", 2).validate(make_sampler(CASES[1], "barker", "constant")) == []
