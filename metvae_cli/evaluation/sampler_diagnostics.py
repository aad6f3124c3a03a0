"""How well a trained sampler samples: its steps, long chains of its kernels, and what its K steps leave to be done."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.evaluation.convergence import effective_size, r_hat
from metvae_cli.evaluation.distances import neighbour_kl
from metvae_cli.evaluation.long_chains import LongChains, run_long_chains
from metvae_cli.evaluation.proposals import Overdispersed
from metvae_cli.evaluation.trained_chain import path_as_trained, trained_positions
from metvae_cli.kernels.acceptance import Acceptance
from metvae_cli.kernels.adaptation import DualAveraging
from metvae_cli.kernels.hamiltonian import Hamiltonian
from metvae_cli.kernels.metropolis_hastings import MetropolisHastings
from metvae_cli.kernels.step_size import StepSize
from metvae_cli.kernels.unadjusted import Unadjusted
from metvae_cli.objectives.base import Model
from metvae_cli.objectives.weights import make_path
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.schedule import Constant

Between = Callable[[int], None]

# Leapfrog steps of the reference chain, in turn.
_TRAJECTORIES = (1, 2, 4)
# A chain of a datum that moves in fewer than this share of its rounds is stuck.
_STUCK = 0.01


class StepDiagnostics(NamedTuple):
    """Of each of the K steps, along the schedule it was trained with; each (K,).

    accept_prob: by the step's own rule; metropolis_prob: by a Metropolis test
    energy_error: mean of -log of the Metropolis ratio, for Hamiltonian steps the error of the energy, in nats;
        energy_error_size: mean of its absolute value. Both over the steps whose ratio is finite
    divergent: share of ratios that are not finite
    """

    accept_prob: Tensor
    metropolis_prob: Tensor
    energy_error: Tensor
    energy_error_size: Tensor
    divergent: Tensor


class ChainDiagnostics(NamedTuple):
    """Of long chains of the kernels, for each of B data.

    r_hat: largest over coordinates; effective_size: smallest; both NaN where a chain never moved, (B,)
    effective_per_evaluation: smallest effective size per evaluation of the decoder, (B,)
    accept_prob: (B,)
    stuck: (B,) bool, a chain moved in fewer than 1 per cent of its rounds
    """

    r_hat: Tensor
    effective_size: Tensor
    effective_per_evaluation: Tensor
    accept_prob: Tensor
    stuck: Tensor


class Reference(NamedTuple):
    """draws: (N, B, D) of the exact posterior, from all chains of a tuned Hamiltonian sampler. r_hat: (B,), largest."""

    draws: Tensor
    r_hat: Tensor


class Remaining(NamedTuple):
    """What separates draws from the reference, for each of B data.

    kl_start, kl_end: KL of q_0 and of q_K to the posterior in nats, from nearest neighbours
    scale_start, scale_end: geometric mean over coordinates of their standard deviations in those of the reference
    """

    kl_start: Tensor
    kl_end: Tensor
    scale_start: Tensor
    scale_end: Tensor


@torch.no_grad()
def diagnose_steps(model: Model, sampler: Sampler, x: Tensor, num_samples: int) -> StepDiagnostics:
    """Run S chains for each datum from q_0 and look at every step."""
    posterior = model.posterior(x)
    path = path_as_trained(model, sampler, x, posterior)
    point = path.evaluate(posterior.rsample((num_samples,)), create_graph=False)
    rows = []
    for kernel, beta in zip(sampler.steps, sampler.schedule.betas(point.z), strict=True):
        if isinstance(kernel, MetropolisHastings):
            attempt = kernel.attempt(point, path, beta, create_graph=False)
            ratio, finite = attempt.log_ratio, attempt.finite
            point, info = kernel.outcome(attempt, kernel.decide(attempt.log_accept))
        else:
            assert isinstance(kernel, Unadjusted)  # there is no third kind
            attempt = kernel.attempt(point, path, beta, create_graph=False)
            ratio, finite = attempt.log_ratio, attempt.finite
            point, info = kernel.outcome(attempt)
        count = finite.sum().clamp(min=1)
        means = [info.accept_prob.mean(), info.metropolis_prob.mean(), -ratio.sum() / count, ratio.abs().sum() / count]
        rows.append(torch.stack([*means, (~finite).double().mean()]))
    return StepDiagnostics(*torch.stack(rows).double().cpu().unbind(1))


def diagnose_chains(
    model: Model, sampler: Sampler, x: Tensor, num_chains: int, num_draws: int, between: Between = lambda done: None
) -> ChainDiagnostics:
    """Long chains of the kernels as trained, from draws of the encoder spread to twice its scale."""
    posterior = model.posterior(x)
    path = path_as_trained(model, sampler, x, posterior)
    start = Overdispersed(posterior, 2.0).rsample((num_chains,)).detach()
    return judge_chains(run_long_chains(sampler, path, start, num_draws, warm_up=num_draws // 2, between=between))


def judge_chains(chains: LongChains) -> ChainDiagnostics:
    """What long chains say of each datum."""
    size = effective_size(chains.by_chain).amin(-1)
    cost = chains.evaluations * chains.draws.shape[1]
    return ChainDiagnostics(
        r_hat=r_hat(chains.by_chain).amax(-1),
        effective_size=size,
        effective_per_evaluation=size / cost,
        accept_prob=chains.accept_prob.mean(0).double().cpu(),
        stuck=(chains.moved.double().mean(0) < _STUCK).any(0).cpu(),
    )


def reference_draws(
    model: Model, x: Tensor, num_chains: int, num_draws: int, between: Between = lambda done: None
) -> Reference:
    """Draws of p(z | x) by Hamiltonian Monte Carlo in the encoder's coordinates, its step size adapted in a warm-up.

    Trajectories of three lengths take turns: one alone may be a period of a Gaussian posterior and lead nowhere.
    """
    step_size = StepSize(0.2, "dual_averaging")
    kernels = [MetropolisHastings(Hamiltonian(step_size, length), Acceptance.METROPOLIS) for length in _TRAJECTORIES]
    sampler = Sampler(kernels, Constant(len(kernels)), precondition="encoder").to(x.device, x.dtype)
    posterior = model.posterior(x)
    path = make_path(posterior, posterior.log_prob, model.joint(x), sampler)
    start = Overdispersed(posterior, 2.0).rsample((num_chains,)).detach()
    adaptations = [DualAveraging([step_size] * len(kernels), 0.8).to(x.device)]
    chains = run_long_chains(sampler, path, start, num_draws, num_draws, adaptations, between=between)
    return Reference(chains.draws.flatten(0, 1), r_hat(chains.by_chain).amax(-1))


def trained_draws(
    model: Model, sampler: Sampler, x: Tensor, num_samples: int, chunk: int = 2048
) -> tuple[Tensor, Tensor]:
    """Draws of q_0 and of the end of the trained chain; each (S, B, D). chunk: chains at a time, for memory."""
    parts = _parts(num_samples, chunk // len(x))
    start, end = torch.cat([trained_positions(model, sampler, x, count)[[0, -1]] for count in parts], 1)
    return start, end


@torch.no_grad()
def elbo(model: Model, x: Tensor, num_samples: int, chunk: int = 2048) -> Tensor:
    """E_q[log p(x, z) - log q(z | x)] of each datum from S draws, (B,), in nats."""
    posterior, joint, total = model.posterior(x), model.joint(x), x.new_zeros(len(x))
    for count in _parts(num_samples, chunk // len(x)):
        z = posterior.rsample((count,))
        total = total + (joint(z) - posterior.log_prob(z)).sum(0)
    return total / num_samples


def _parts(total: int, at_a_time: int) -> list[int]:
    """A number as a sum of parts of at most so many."""
    size = max(1, at_a_time)
    return [min(size, total - start) for start in range(0, total, size)]


def compare_with_reference(start: Tensor, end: Tensor, reference: Reference) -> Remaining:
    """What separates draws of q_0 and q_K, each (S, B, D), from the posterior."""
    columns: list[list[float]] = []
    for datum in range(start.shape[1]):
        truth = reference.draws[:, datum]
        pair = (start[:, datum], end[:, datum])
        scales = [(draws.std(0) / truth.std(0)).log().mean().exp().item() for draws in pair]
        columns.append([*(neighbour_kl(draws, truth) for draws in pair), *scales])
    return Remaining(*torch.tensor(columns, dtype=torch.float64).unbind(1))
