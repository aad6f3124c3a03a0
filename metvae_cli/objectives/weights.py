"""Objectives made of log-weights: how the chain is accounted for, and a functional of the S weights of each datum.

    log w = log p(x, z_K) - log q(z_0 | x) + sum_k increment_k

| bookkeeping | increment_k                                                      | gives                             |
| none        | there is no chain                                                | ELBO, IWAE, Renyi                 |
| path        | a_k log_correction_k - log alpha_k(a_k), and log r(a) for all    | MetVAE (MetFlow, 2002.12253)      |
| reversal    | log_correction_k (unadjusted)                                    | L-MCVAE (2106.15921), UHA, HVAE   |
|             | log g_k(z_{k-1}) - log g_k(z_k) (adjusted)                       | A-MCVAE, AIS                      |

In each case E[w] <= p(x) (equal but for Metropolis decisions under `path` with an r that gives mass to what cannot
happen), so E[F] <= log p(x) for the mean and for log-mean-exp. r is the sampler's reverse distribution.
"""

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, Point
from metvae_cli.gaussians import DiagonalGaussian
from metvae_cli.kernels.adaptation import Adaptation
from metvae_cli.objectives import functionals
from metvae_cli.objectives.base import ClonedModel, Model, ObjectiveOutput, Posterior
from metvae_cli.objectives.baseline import RunningBaseline, credits_of_steps, running_score_term
from metvae_cli.objectives.score_function import Baseline, score_term
from metvae_cli.objectives.soundness import notes, refuse, require_chains_for_scale
from metvae_cli.samplers.chain import Sampler
from metvae_cli.samplers.enumeration import histories_of
from metvae_cli.samplers.trajectory import Trajectory
from metvae_cli.scores import LogDensity

Bookkeeping = Literal["none", "reversal", "path"]
FunctionalName = Literal["mean", "log_mean_exp", "renyi"]
Gradient = Literal["plain", "stl", "dreg"]
_ALPHA = 0.5


class WeightObjective:
    """A bound on log p(x) from log-weights.

    Args:
        bookkeeping: see the module's head
        functional: `mean` (ELBO), `log_mean_exp` (IWAE) or `renyi`
        num_samples: S, chains per datum
        alpha: order of the Renyi bound; 1 is the ELBO, 0 IWAE, -inf the largest weight
        gradient: `plain`; or, without a chain, `stl` (sticking the landing: log q held fixed in its parameters) or
            `dreg` (doubly reparameterised, Tucker et al. 2019)
        baseline: of the score function, `leave_one_out`, `running` (per step, for one chain per datum too) or `none`
        num_steps: K, for the running baseline

    Raises:
        ValueError: a number is out of range, or two options contradict each other
    """

    def __init__(
        self,
        bookkeeping: Bookkeeping,
        functional: FunctionalName = "mean",
        num_samples: int = 1,
        alpha: float = _ALPHA,
        gradient: Gradient = "plain",
        baseline: Baseline = "leave_one_out",
        num_steps: int = 0,
    ) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: must be at least 1")
        if math.isnan(alpha) or alpha == math.inf:
            raise ValueError(f"alpha={alpha}: must be a number or -inf")
        if gradient != "plain" and (bookkeeping != "none" or functional == "renyi"):
            raise ValueError(
                f"gradient={gradient}: exists for the ELBO and IWAE without a chain only; set gradient=plain"
            )
        choices = {"mean": functionals.mean, "log_mean_exp": functionals.log_mean_exp}
        self.functional = choices.get(functional) or functionals.renyi(alpha)
        self.bookkeeping: Bookkeeping = bookkeeping
        self.functional_name: FunctionalName = functional
        self.num_samples = num_samples
        self.alpha = alpha
        self.gradient: Gradient = gradient
        self.baseline: Baseline = baseline
        self.running = RunningBaseline(num_steps) if baseline == "running" else None
        self.adaptations: Sequence[Adaptation] = () if self.running is None else (self.running,)

    def __call__(self, model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float = 1.0) -> ObjectiveOutput:
        """Run S chains per datum and weigh them; `sampler.evaluations` evaluations of the decoder for S * B vectors."""
        create_graph = torch.is_grad_enabled()
        posterior = model.posterior(x)
        target = target_of_moves(model, sampler, x, likelihood_weight)
        path = make_path(posterior, self._log_initial(model, posterior, x), target, sampler)
        start = posterior.rsample((self.num_samples,))
        joint = model.joint(x, likelihood_weight) if sampler.clones else None
        weights, trajectory = self._weigh(sampler, start, path, joint)
        bound = self.functional(weights, 0)
        value = differentiated = -bound.mean()
        if self.gradient == "dreg":
            differentiated = -self._doubly_reparameterised(weights, start).mean()
        score_loss, credit = None, None
        if create_graph and draws_decisions(sampler):
            credit = self._credit(weights, trajectory) if self.running is not None else None
            info = trajectory.info
            score_loss = -self._score_term(weights, info.log_alpha + info.log_choice, credit).mean()
        initial = detach(trajectory.initial)
        return ObjectiveOutput(
            loss=with_value(value, differentiated, score_loss),
            score_loss=score_loss,
            bound=bound.detach(),
            log_weights=weights.detach(),
            initial=initial,
            final=initial if trajectory.final is trajectory.initial else detach(trajectory.final),
            info=trajectory.info._replace(
                log_alpha=trajectory.info.log_alpha.detach(), log_choice=trajectory.info.log_choice.detach()
            ),
            evaluations=path.evaluations,
            score_moments=trajectory.score_moments,
            credit=None if credit is None else credit.mean((1, 2)),
        )

    def _weigh(
        self, sampler: Sampler, start: Tensor, path: AnnealedPath, joint: LogDensity | None
    ) -> tuple[Tensor, Trajectory]:
        """log w of each chain, (S, B), and its trajectory: the one of its histories, or one of them, drawn.

        joint: what weighs z_K where it is not the target of the moves
        """
        create_graph = torch.is_grad_enabled()
        if sampler.decisions == "sampled":
            trajectory = sampler(start, path, create_graph=create_graph)
            return log_weights(trajectory, self.bookkeeping, sampler, path, joint)
        mean = self.functional_name == "mean"
        # Nothing cancels against the exact r, which is made of the probabilities of the decisions.
        through_tests = mean or self.bookkeeping != "path" or sampler.reverse.is_exact
        histories = histories_of(sampler, start, path, create_graph=create_graph, through_tests=through_tests)
        weights, trajectory = log_weights(histories.trajectory, self.bookkeeping, sampler, path, joint)
        collapsed = histories.expectation(weights) if mean else histories.log_expectation(weights)
        return collapsed, histories._replace(trajectory=trajectory).draw(None if mean else weights)

    def _score_term(self, weights: Tensor, log_probability: Tensor, credit: Tensor | None) -> Tensor:
        if self.running is None or credit is None:
            return score_term(self.functional, weights, log_probability, self.baseline == "leave_one_out")
        return running_score_term(credit, self.running.mean, log_probability)

    def _credit(self, weights: Tensor, trajectory: Trajectory) -> Tensor:
        info = trajectory.info
        increments = info.log_path if self.bookkeeping == "path" else info.log_reversal
        return credits_of_steps(weights, increments, trajectory.log_final, trajectory.initial.log_initial)

    def validate(self, sampler: Sampler) -> list[str]:
        """Refuse what is unsound or pointless (ValueError with the remedy); return notes on the rest."""
        refuse(self.bookkeeping, sampler)
        self._refuse_options(sampler)
        found = notes(self.bookkeeping, self.functional_name, sampler)
        if self.baseline == "running" and not draws_decisions(sampler) and sampler.decisions != "stopped":
            found.append("objective.baseline=running: has no effect, since nothing is decided by a draw here")
        if self.functional_name == "log_mean_exp" and self.num_samples == 1 and sampler.decisions == "sampled":
            same = "the ELBO" if self.bookkeeping == "none" else "that of objective.functional=mean"
            found.append(f"objective.num_samples=1: the importance-weighted bound of one sample is {same}")
            if draws_decisions(sampler):
                found[-1] += "; stops are counted with sampler=hmc_stopped, and objective=metvae is for drawn decisions"
        if self.functional_name == "log_mean_exp" and self.gradient == "stl":
            found.append("objective.gradient=stl: biased for the importance-weighted bound; dreg is not")
        if self.functional_name != "renyi" and self.alpha != _ALPHA:
            found.append(f"objective.alpha={self.alpha}: has no effect, since it is of objective.functional=renyi only")
        if self.functional_name == "renyi" and self.alpha < 0:
            found.append(f"objective.alpha={self.alpha}: below 0 the Renyi objective bounds log p(x) on neither side")
        return found

    def _refuse_options(self, sampler: Sampler) -> None:
        if self.baseline == "leave_one_out" and draws_decisions(sampler) and self.num_samples < 2:
            raise ValueError(
                f"num_samples={self.num_samples}: the gradient through accept and reject decisions needs at least 2 "
                "chains per datum for its leave-one-out baseline; set objective.num_samples=2 or more, or "
                "objective.baseline=running"
            )
        require_chains_for_scale(sampler, self.num_samples)
        mixes = self.functional_name != "mean" and self.num_samples > 1
        if self.baseline == "running" and mixes and draws_decisions(sampler):
            raise ValueError(
                f"baseline=running: credits single chains, and functional={self.functional_name} mixes those of a "
                "datum; set objective.baseline=leave_one_out"
            )
        if sampler.decisions != "sampled" and self.functional_name == "renyi":
            raise ValueError(
                "functional=renyi: is not defined over decisions that are summed out; set sampler.decisions=sampled, "
                "or objective.functional=mean or log_mean_exp"
            )

    def _log_initial(self, model: Model, posterior: Posterior, x: Tensor) -> LogDensity:
        """log q(z | x), its parameters held fixed for the gradients that want that."""
        if self.gradient == "plain":
            return density_of(posterior)
        with torch.no_grad():
            return density_of(model.posterior(x))

    def _doubly_reparameterised(self, weights: Tensor, start: Tensor) -> Tensor:
        """A scalar per datum whose gradient is sum_s v_s d log w_s / d theta, and sum_s v_s^2 of it through z; (B,).

        v are the normalised weights (1 / S each for the mean, for which nothing is gained over `stl`).
        """
        if self.functional_name == "mean":
            return weights.mean(0)
        normalised = weights.detach().softmax(0)
        if start.requires_grad:
            start.register_hook(lambda gradient: normalised[..., None] * gradient)
        return (normalised * weights).sum(0)


def make_path(posterior: Posterior, log_initial: LogDensity, log_final: LogDensity, sampler: Sampler) -> AnnealedPath:
    """The path of a batch, with all that the sampler's proposals may ask of it."""
    mean, scale = posterior.mean, posterior.stddev
    return AnnealedPath(
        log_initial,
        log_final,
        needs_score=sampler.needs_score,
        detach_forces=sampler.detach_forces,
        frame=sampler.frame(mean, scale),
        context=torch.cat([mean, scale.log()], -1) if sampler.num_steps else None,
        draw_initial=posterior.rsample,
    )


def density_of(posterior: Posterior) -> LogDensity:
    """log q(z | x), (S, B, D) -> (S, B), with its score where it has a closed form."""
    # The class itself: one that inherits from it may have another density.
    return cast(DiagonalGaussian, posterior).density() if type(posterior) is DiagonalGaussian else posterior.log_prob


def target_of_moves(model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float) -> LogDensity:
    """log p(x, z) of the model, or of its copy if the chain moves on that."""
    if not sampler.clones:
        return model.joint(x, likelihood_weight)
    assert isinstance(model, ClonedModel)
    return model.clone_joint(x, likelihood_weight)


def log_weights(
    trajectory: Trajectory,
    bookkeeping: Bookkeeping,
    sampler: Sampler,
    path: AnnealedPath,
    joint: LogDensity | None = None,
) -> tuple[Tensor, Trajectory]:
    """log w of each chain, (S, B), and the trajectory with the log p(x, z_K) that is weighed.

    joint: log p(x, z), where the moves have another target: one more evaluation
    """
    added = torch.zeros_like(trajectory.final.log_final)
    if bookkeeping == "reversal":
        added = trajectory.info.log_reversal.sum(0)
    elif bookkeeping == "path":
        betas = sampler.schedule().to(added)
        added = trajectory.info.log_path.sum(0) + sampler.reverse.log_prob(trajectory, path, sampler.steps, betas)
    if joint is not None:
        log_final = path.value_under(joint, trajectory.final.z)
        trajectory = trajectory._replace(final=trajectory.final._replace(log_final=log_final))
    return trajectory.final.log_final - trajectory.initial.log_initial + added, trajectory


def draws_decisions(sampler: Sampler) -> bool:
    """Whether something is drawn without a gradient, so that the score-function term is needed."""
    if sampler.decisions != "sampled":
        return False
    return sampler.is_adjusted or any(kernel.proposal.draws_choice for kernel in sampler.steps)


def with_value(value: Tensor, differentiated: Tensor, score_loss: Tensor | None) -> Tensor:
    """A scalar of the given value, with the gradient of `differentiated` plus that of `score_loss`."""
    loss = value if value is differentiated else value.detach() + differentiated - differentiated.detach()
    return loss if score_loss is None else loss + score_loss - score_loss.detach()


def detach(point: Point) -> Point:
    """The point without its graph."""
    return Point(*(None if t is None else t.detach() for t in point))  # pyright: ignore[reportArgumentType]
