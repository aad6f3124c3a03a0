"""Long chains reach their targets, by a judge that calls a chain converged before it compares it with the truth.

Chains are run side by side, as many as cost little more than one. Where one of sixteen would start in a place too
stiff for the step size of the others, or chains mix slowly, four longer ones are run. Their step sizes are adapted
while they warm up, then fixed. The judge is that of `convergence.py`, and is put on trial here too.

Left out: random walks in fifty dimensions, whose effective size is still about 140 after 25 000 draws, and whatever is
not HMC on the ill-conditioned Gaussian and the deep funnel, where it would take longer still.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import signal, stats
from torch import Tensor

from metvae_cli.densities import AnnealedPath
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.adaptation import DualAveraging, Outcome
from metvae_cli.kernels.base import Kernel, Proposal
from metvae_cli.kernels.flow import Bijection, Coin, Flow
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.independent import Independent
from metvae_cli.kernels.langevin import Langevin
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.partial_hamiltonian import PartialHamiltonian
from metvae_cli.kernels.random_walk import RandomWalk
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.unadjusted import Unadjusted
from tests.kernels.cases import bijection
from tests.kernels.convergence import FALSE_ALARM, Verdict, effective_size, judge, r_hat
from tests.targets import (
    Banana,
    Correlated,
    DeepFunnel,
    EightModes,
    Funnel,
    Normals,
    Ring,
    Target,
    normal_log_prob,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("double")]


def path_to(target: Target, kernels: Sequence[Kernel], broad: float = 3.0) -> AnnealedPath:
    """The path from N(0, broad^2 I) to the target."""

    def initial(z: Tensor) -> Tensor:
        return normal_log_prob(z, 0.0, broad).sum(-1)

    def draw_initial(shape: tuple[int, ...]) -> Tensor:
        return broad * torch.randn(*shape, 1, target.dim)

    needs_score = any(kernel.proposal.needs_score for kernel in kernels)
    return AnnealedPath(initial, target.log_prob, needs_score=needs_score, draw_initial=draw_initial)


@dataclass(frozen=True)
class Case:
    """A chain: kernels made from step sizes, taken in turn; one draw is one round.

    accept: what the step sizes are adapted to. draws, warm_up: rounds. chains: run side by side
    """

    name: str
    make: Callable[[Callable[[], StepSize]], Sequence[Kernel]]
    accept: float = 0.8
    draws: int = 8_000
    warm_up: int = 1_000
    chains: int = 16

    def run(self, target: Target, start: Tensor, broad: float = 3.0) -> Tensor:
        """Draws (chains, draws, D) from chains that start at the rows of `start`."""
        step_sizes: list[StepSize] = []

        def step_size() -> StepSize:
            step_sizes.append(StepSize(0.3, "dual_averaging"))
            return step_sizes[-1]

        kernels = self.make(step_size)
        path, beta = path_to(target, kernels, broad), torch.tensor(1.0)
        adaptation = DualAveraging(step_sizes, self.accept) if step_sizes else None
        kept = torch.empty(len(start), self.draws, target.dim)
        point = path.evaluate(start[:, None], create_graph=False)
        with torch.no_grad():
            for index in range(-self.warm_up, self.draws):
                if index == 0:
                    adaptation = None
                    for kernel in kernels:
                        kernel.eval()  # from here on the step size is the one that has settled
                rates = []
                for kernel in kernels:
                    point, info = kernel.step(point, path, beta, create_graph=False)
                    rates += [info.metropolis_prob] if hasattr(kernel.proposal, "step_size") else []
                if adaptation is not None:
                    adaptation.update(Outcome(torch.stack(rates), point.z))
                if index >= 0:
                    kept[:, index] = point.z[:, 0]
        return kept


def adjusted(proposal: Proposal, rule: Acceptance = Acceptance.METROPOLIS) -> MetropolisHastings:
    return MetropolisHastings(proposal, rule)


WALK = Case("walk", lambda step: [adjusted(RandomWalk(step()))], 0.35)
BARKER_WALK = Case("barker_walk", lambda step: [adjusted(RandomWalk(step()), Acceptance.BARKER)], 0.35, 16_000)
INDEPENDENT = Case("independent", lambda step: [adjusted(Independent())])
MALA = Case("mala", lambda step: [adjusted(Langevin(step()))], 0.6)
LONG_MALA = replace(MALA, draws=25_000, warm_up=5_000, chains=4)
SHORT_MALA = replace(MALA, name="short_mala", accept=0.8, draws=12_500, warm_up=2_500, chains=8)
# Fewer draws from here on: each costs more, and is worth more.
HMC = Case("hmc", lambda step: [adjusted(Hamiltonian(step(), 4))], 0.8, 2_500)
LONG_HMC = replace(HMC, draws=6_000, warm_up=1_500, chains=4)
PARTIAL = Case("partial", lambda step: [adjusted(PartialHamiltonian(step(), 1, 0.9))], 0.9, 4_000)
LONG_PARTIAL = replace(PARTIAL, draws=12_000, warm_up=3_000, chains=4)
FLOW = Case(
    "walk_and_flow",  # a flow alone would visit a countable set
    lambda step: [adjusted(RandomWalk(step())), adjusted(Flow(bijection(2), Coin(0.5)))],
    0.35,
    6_000,
)
# The last moves the widest coordinates, the others any that happens to return to its start, or its mirror, after that.
FAR_HMC = Case("far_hmc", lambda step: [adjusted(Hamiltonian(step(), count)) for count in (14, 19, 137)], 0.8, 450, 100)
PLANAR = [Correlated(), Banana(), Ring(), Funnel()]
CORRELATED_50 = Normals("correlated_50", [1.0] * 50, 0.5)
ILL_50 = Normals("ill_conditioned_50", [1.0, 3.0, 10.0, 30.0, 100.0] * 10, 0.0)
PAIRS: list[tuple[Case, Target]] = [
    *((case, target) for case in (WALK, BARKER_WALK, INDEPENDENT) for target in PLANAR),
    *((HMC, target) for target in (Correlated(), Banana(), Ring())),
    *((PARTIAL, target) for target in (Correlated(), Banana())),
    *((case, Funnel()) for case in (LONG_HMC, LONG_PARTIAL, LONG_MALA)),
    *((case, Ring()) for case in (LONG_PARTIAL, LONG_MALA)),
    (MALA, Correlated()),
    (SHORT_MALA, Banana()),  # adapted to 0.6, its steps seldom reach the tails, where the score grows, or leave them
    (FLOW, Correlated()),
    (FLOW, Banana()),
    *((case, CORRELATED_50) for case in (MALA, HMC, PARTIAL)),
]


@pytest.mark.parametrize(("case", "target"), PAIRS, ids=[f"{case.name}-{target.name}" for case, target in PAIRS])
def test_chain_reaches_its_target(case: Case, target: Target) -> None:
    verdict = judge(case.run(target, 2 * torch.randn(case.chains, target.dim)), target)
    assert verdict.passed, verdict


def test_hmc_reaches_an_ill_conditioned_gaussian() -> None:
    """Condition number 1e4: a round has 170 leapfrogs."""
    verdict = judge(FAR_HMC.run(ILL_50, 2 * torch.randn(FAR_HMC.chains, 50)), ILL_50)
    assert verdict.passed, verdict


def test_hmc_is_never_called_converged_on_a_deep_funnel_with_a_wrong_neck() -> None:
    target = DeepFunnel()
    verdict = judge(LONG_HMC.run(target, torch.randn(LONG_HMC.chains, target.dim)), target, only=[0])
    assert verdict.passed or not verdict.converged, verdict


def test_the_judge_rejects_draws_that_agree_with_each_other_and_not_with_the_target() -> None:
    """Chains that hardly enter the neck: without the truth they look converged."""
    target = DeepFunnel()
    draws = target.sample(400_000)
    kept = (draws[:, 0] > -2) | (torch.rand(len(draws)) < 0.1)
    wrong = draws[kept][:100_000].reshape(4, -1, target.dim)
    verdict = judge(wrong, target, only=[0])
    assert verdict.converged
    assert not verdict.passed


FAR = EightModes(radius=15.0, scale=1.0)


@pytest.mark.parametrize("case", [WALK, BARKER_WALK, MALA, HMC, PARTIAL], ids=lambda case: case.name)
def test_chains_stuck_in_different_modes_are_noticed(case: Case) -> None:
    start = FAR.means[::2] + torch.randn(4, 2)
    verdict = judge(replace(case, draws=2_000, warm_up=1_000).run(FAR, start), FAR)  # that is enough to tell
    assert verdict.r_hat > 1.05
    assert not verdict.converged


class Turn(Bijection):
    """Turns the plane by an eighth of a circle, from one mode of `EightModes` to the next."""

    def __init__(self) -> None:
        super().__init__(2, 0, "affine", 1, ())

    def forward(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turned(w, 1.0)

    def inverse(self, w: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turned(w, -1.0)

    def _turned(self, w: Tensor, sign: float) -> tuple[Tensor, Tensor]:
        cosine, sine = math.cos(math.pi / 4), sign * math.sin(math.pi / 4)
        turned = w @ w.new_tensor([[cosine, sine], [-sine, cosine]])
        return turned, torch.zeros_like(w[..., 0])


TURNING = Case(
    "walk_and_turn",
    lambda step: [adjusted(RandomWalk(step())), adjusted(Flow(Turn(), Coin(0.5)))],
    0.35,
    10_000,
    2_000,
)


@pytest.mark.parametrize("case", [INDEPENDENT, TURNING], ids=lambda case: case.name)
def test_all_modes_are_visited_equally_often(case: Case) -> None:
    draws = case.run(FAR, FAR.means[::2] + torch.randn(4, 2), broad=12.0)
    verdict = judge(draws, FAR)
    assert verdict.passed, verdict
    visited = torch.cdist(draws, FAR.means.expand(4, -1, -1)).argmin(-1)
    indicators = torch.nn.functional.one_hot(visited, 8).double().numpy()
    stride = math.ceil(3 * visited.numel() / effective_size(indicators).min())  # by then little autocorrelation is left
    counts = visited[:, ::stride].flatten().bincount(minlength=8).numpy()
    assert stats.chisquare(counts).pvalue > FALSE_ALARM


def test_the_judge_passes_exact_draws_and_rejects_an_unadjusted_chain() -> None:
    target = Correlated()
    assert judge(target.sample(100_000).reshape(4, 25_000, 2), target).passed
    biased = Case("unadjusted", lambda step: [Unadjusted(Langevin(StepSize(0.15)))], draws=10_000, warm_up=1_000)
    verdict = judge(biased.run(target, 2 * torch.randn(4, 2)), target)
    assert verdict.converged, verdict
    assert verdict.error > 1


def test_effective_size_of_an_autoregression_is_that_of_theory() -> None:
    noise = torch.randn(4, 26_000).numpy()
    series = np.asarray(signal.lfilter([1.0], [1.0, -0.8], noise))[:, 1_000:, None]
    assert effective_size(series).item() / series.size == pytest.approx((1 - 0.8) / (1 + 0.8), rel=0.1)
    assert r_hat(series).item() < 1.01


def test_what_is_constant_or_not_finite_has_no_diagnostics() -> None:
    series = torch.randn(4, 1_000, 4).numpy()
    series[:, :, 0] = 1.0
    series[2, :, 1] = 1.0  # one stuck chain is enough
    series[1, 5, 2] = np.nan
    for statistic in (effective_size, r_hat):
        assert np.isnan(statistic(series)).tolist() == [True, True, True, False]
    assert not Verdict(math.nan, 1e6, 0.0).passed
    assert not Verdict(1.0, math.nan, 0.0).passed
    assert not Verdict(1.0, 1e6, math.nan).passed
