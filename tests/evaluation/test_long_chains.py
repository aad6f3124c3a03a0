"""Long chains of a sampler's kernels."""

import math

import torch

from metvae_cli.densities import AnnealedPath
from metvae_cli.evaluation.convergence import effective_size, r_hat
from metvae_cli.evaluation.long_chains import LongChains, run_long_chains
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.adaptation import DualAveraging
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.schedule import Linear
from tests.targets import Correlated


def run(step_size: float, warm_up: int, num_draws: int = 500, thin: int = 1) -> tuple[LongChains, StepSize]:
    size, target = StepSize(step_size, "dual_averaging"), Correlated()
    sampler = Sampler([MetropolisHastings(Hamiltonian(size, 3), Acceptance.METROPOLIS)], Linear(1))
    path = AnnealedPath(lambda z: -0.5 * z.square().sum(-1) / 9, target.log_prob, needs_score=True)
    torch.manual_seed(0)
    start = 3 * torch.randn(8, 1, 2)
    adaptations = [DualAveraging([size], 0.8)] if warm_up else []
    return run_long_chains(sampler, path, start, num_draws, warm_up, adaptations, thin), size


def test_the_target_is_the_end_of_the_path_whatever_the_schedule() -> None:
    chains, _ = run(0.1, warm_up=200, num_draws=1000)
    draws = chains.draws[:, :, 0]
    assert (r_hat(chains.by_chain) < 1.02).all()
    assert (effective_size(chains.by_chain) > 400).all()
    assert abs(torch.corrcoef(draws.flatten(0, 1).T)[0, 1].item() - Correlated.rho) < 0.05
    assert torch.allclose(draws.flatten(0, 1).var(0), torch.ones(2), atol=0.15)


def test_the_warm_up_reaches_its_acceptance_and_then_stops() -> None:
    chains, size = run(5.0, warm_up=300)
    assert abs(chains.accept_prob.mean().item() - 0.8) < 0.1
    settled = size.log_settled.item()
    assert not math.isclose(settled, math.log(5.0), abs_tol=0.5)
    shorter, same = run(5.0, warm_up=300, num_draws=5)  # what comes after the warm-up changes nothing
    assert same.log_settled.item() == settled
    assert torch.equal(shorter.draws, chains.draws[:5])


def test_chains_with_a_far_too_large_step_are_seen_not_to_move() -> None:
    chains, _ = run(200.0, warm_up=0)
    assert not chains.moved.any()
    assert chains.accept_prob.max().item() < 0.01
    assert r_hat(chains.by_chain).isnan().all()


def test_costs_and_shapes() -> None:
    chains, _ = run(0.5, warm_up=5, num_draws=7, thin=3)
    assert chains.draws.shape == (7, 8, 1, 2)
    assert chains.by_chain.shape == (8, 7, 1, 2)
    assert chains.moved.shape == (7, 8, 1)
    assert chains.evaluations == 7 * 3 * 3
