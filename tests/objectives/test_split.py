"""Hoffman's algorithm and the contrastive divergence in one dimension, where every expectation is known."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.independent import Independent as IndependentProposal
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.objectives.base import Objective
from metvae_cli.objectives.fisher import FisherObjective
from metvae_cli.objectives.split_gradient import carrier
from metvae_cli.objectives.vcd import ContrastiveObjective, divergence
from metvae_cli.samplers.assembly import AcceptanceName, make_kernel, make_schedule
from metvae_cli.samplers.chain import Sampler
from metvae_cli.scores import LogDensity

pytestmark = pytest.mark.usefixtures("double")
NOISE = 0.7
X = torch.tensor([[1.1]], dtype=torch.float64)


class Line:
    """z ~ N(0, 1), x | z ~ N(slope z + offset, NOISE^2), q = N(mean, e^(2 log_scale)); its posterior by Bayes' rule."""

    def __init__(self, mean: float | None = None, log_scale: float | None = None) -> None:
        self.generative = nn.ParameterDict({"slope": torch.tensor(1.3), "offset": torch.tensor(-0.4)})
        exact = self.exact_posterior(X)
        self.inference = nn.ParameterDict(
            {
                "mean": torch.tensor(float(exact.mean) if mean is None else mean),
                "log_scale": torch.tensor(float(exact.stddev.log()) if log_scale is None else log_scale),
            }
        )

    def exact_posterior(self, x: Tensor) -> Normal:
        slope, offset = self.generative["slope"].detach(), self.generative["offset"].detach()
        precision = 1 + slope**2 / NOISE**2
        return Normal(slope * (x - offset) / NOISE**2 / precision, precision**-0.5)

    def log_evidence(self, x: Tensor) -> Tensor:
        return Normal(self.generative["offset"], (self.generative["slope"] ** 2 + NOISE**2).sqrt()).log_prob(x).sum()

    def posterior(self, x: Tensor) -> Independent:
        shape = (len(x), 1)
        scale = self.inference["log_scale"].exp().expand(shape)
        return Independent(Normal(self.inference["mean"].expand(shape), scale), 1)

    def joint(self, x: Tensor, likelihood_weight: float = 1.0) -> LogDensity:
        def log_density(z: Tensor) -> Tensor:
            likelihood = Normal(self.generative["slope"] * z + self.generative["offset"], NOISE).log_prob(x)
            return (Normal(0.0, 1.0).log_prob(z) + likelihood).sum(-1)

        return log_density

    def inference_parameters(self) -> Iterator[nn.Parameter]:
        return self.inference.parameters()

    def generative_parameters(self) -> Iterator[nn.Parameter]:
        return self.generative.parameters()


def make_sampler(num_steps: int, acceptance: AcceptanceName = "metropolis", step: float = 0.5) -> Sampler:
    kernels = [make_kernel(Hamiltonian(StepSize(step), 2), acceptance) for _ in range(num_steps)]
    return Sampler(kernels, make_schedule("constant", num_steps))


def gradients(
    objective: Objective, model: Line, sampler: Sampler, parameters: list[nn.Parameter]
) -> tuple[Tensor, Tensor]:
    """Mean and standard error of 30 estimates on 4000 data each."""
    rows = []
    for _ in range(30):
        loss = objective(model, sampler, X.expand(4000, 1)).loss
        rows.append(torch.stack(torch.autograd.grad(-loss, parameters)))
    found = torch.stack(rows)
    return found.mean(0), found.std(0) / len(found) ** 0.5


@pytest.mark.parametrize("make", [FisherObjective, ContrastiveObjective])
def test_at_the_posterior_the_decoder_follows_the_likelihood(make: type[FisherObjective]) -> None:
    """Fisher's identity is exact where the chain starts, and so stays, in the posterior."""
    model = Line()
    parameters = list(model.generative_parameters())
    mean, error = gradients(make(2), model, make_sampler(2), parameters)
    exact = torch.stack(torch.autograd.grad(model.log_evidence(X), parameters))
    assert ((mean - exact) / error).abs().max() < 5


def test_an_unadjusted_chain_would_be_seen() -> None:
    """The judge above, shown a chain that does not keep the posterior."""
    model = Line()
    parameters = list(model.generative_parameters())
    mean, error = gradients(FisherObjective(2), model, make_sampler(3, "none", 0.9), parameters)
    exact = torch.stack(torch.autograd.grad(model.log_evidence(X), parameters))
    assert ((mean - exact) / error).abs().max() > 5


def test_a_long_chain_takes_the_bias_of_a_poor_encoder_away() -> None:
    model = Line(mean=-0.5, log_scale=-0.5)
    parameters = list(model.generative_parameters())
    exact = torch.stack(torch.autograd.grad(model.log_evidence(X), parameters))
    errors = [gradients(FisherObjective(1), model, make_sampler(k), parameters)[0] - exact for k in (0, 2, 12)]
    sizes = [float(error.abs().max()) for error in errors]
    assert sizes[0] > 3 * sizes[1] > 9 * sizes[2]
    assert sizes[2] < 0.02


def test_hoffmans_encoder_follows_the_elbo() -> None:
    """Its gradient is the ELBO's, in closed form: minus that of KL(q || p(z | x))."""
    model = Line(mean=-0.5, log_scale=-0.5)
    parameters = list(model.inference_parameters())
    mean, error = gradients(FisherObjective(2), model, make_sampler(2), parameters)
    gap = kl_divergence(model.posterior(X).base_dist, model.exact_posterior(X)).sum()
    exact = -torch.stack(torch.autograd.grad(gap, parameters))
    assert ((mean - exact) / error).abs().max() < 5


def symmetric_divergence(model: Line) -> Tensor:
    q, p = model.posterior(X).base_dist, model.exact_posterior(X)
    return (kl_divergence(q, p) + kl_divergence(p, q)).sum()


def test_the_contrastive_divergence_of_a_long_chain_is_symmetric() -> None:
    model = Line(mean=-0.2, log_scale=-0.3)
    with torch.no_grad():
        values = divergence(ContrastiveObjective(2)(model, make_sampler(15), X.expand(100_000, 1)))
    assert abs(values.mean() - symmetric_divergence(model)) < 5 * values.std() / math.sqrt(len(values))


def test_the_encoder_follows_the_contrastive_divergence() -> None:
    model = Line(mean=-0.2, log_scale=-0.3)
    parameters = list(model.inference_parameters())
    exact = -torch.stack(torch.autograd.grad(symmetric_divergence(model), parameters))
    mean, error = gradients(ContrastiveObjective(2), model, make_sampler(15), parameters)
    assert ((mean - exact) / error).abs().max() < 5
    elbo, elbo_error = gradients(FisherObjective(2), model, make_sampler(1), parameters)
    assert ((elbo - exact) / elbo_error).abs().max() > 5  # the judge tells another objective apart


def test_short_chains_have_the_score_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finite differences of E[L] with common random numbers, for a chain so short that q_K depends on q_0."""
    model, sampler = Line(mean=-0.2, log_scale=-0.3), make_sampler(1)
    parameters = list(model.inference_parameters())
    mean, error = gradients(ContrastiveObjective(2), model, sampler, parameters)
    differences = []
    for parameter in parameters:
        rows = []
        for repeat in range(12):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter += sign * 0.05
                    torch.manual_seed(repeat)
                    values.append(divergence(ContrastiveObjective(2)(model, sampler, X.expand(50_000, 1))).mean())
                    parameter -= sign * 0.05
            rows.append(-(values[0] - values[1]) / 0.1)
        differences.append(torch.stack(rows))
    found = torch.stack(differences)
    spread = (error**2 + found.var(1) / found.shape[1]).sqrt()
    assert ((mean - found.mean(1)) / spread).abs().max() < 5


@pytest.mark.parametrize("make", [FisherObjective, ContrastiveObjective])
def test_a_chain_that_is_not_invariant_for_the_posterior_is_refused(make: type[FisherObjective]) -> None:
    annealed = Sampler(make_sampler(2).steps, make_schedule("linear", 2))
    for sampler in (make_sampler(0), make_sampler(2, "none"), annealed):
        with pytest.raises(ValueError, match=r"sampler\.acceptance=metropolis"):
            make(2).validate(sampler)
    learned = Sampler([make_kernel(Hamiltonian(StepSize(0.5, "learned")), "barker")], make_schedule("constant", 1))
    with pytest.raises(ValueError, match="step_size_rule"):
        make(2).validate(learned)
    assert make(2).validate(make_sampler(2)) == []


def test_steps_that_depend_on_the_encoder_are_refused_where_that_would_be_forgotten() -> None:
    constant = make_schedule("constant", 1)
    for words, sampler in {
        "sampler.precondition=encoder": Sampler(make_sampler(1).steps, constant, precondition="encoder"),
        "sampler=independent": Sampler([make_kernel(IndependentProposal(), "metropolis")], constant),
    }.items():
        with pytest.raises(ValueError, match=words):
            ContrastiveObjective(2).validate(sampler)
        assert FisherObjective(2).validate(sampler) == []


def test_evaluations_are_counted() -> None:
    output = FisherObjective(3)(Line(), make_sampler(4), X.expand(5, 1))
    assert output.evaluations == 15 * (1 + 4 * 2 + 1)
    with torch.no_grad():
        assert FisherObjective(3)(Line(), make_sampler(4), X.expand(5, 1)).evaluations == 15 * (1 + 4 * 2)


def test_a_carrier_has_the_gradient_of_the_loss_in_its_parameters_only() -> None:
    mine, other = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(3.0))
    scalar = carrier(mine**2 * other, [mine])
    assert scalar.item() == 0
    scalar.backward()
    assert mine.grad == 12
    assert other.grad is None
