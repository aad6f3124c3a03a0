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
from typing import Literal

import torch
from torch import Tensor

from metvae_cli.densities import AnnealedPath, LogDensity, Point
from metvae_cli.objectives import functionals
from metvae_cli.objectives.base import Model, ObjectiveOutput, Posterior
from metvae_cli.objectives.score_function import Baseline, score_term
from metvae_cli.objectives.soundness import notes, refuse
from metvae_cli.samplers.chain import Sampler, Trajectory

Bookkeeping = Literal["none", "reversal", "path"]
FunctionalName = Literal["mean", "log_mean_exp", "renyi"]
Gradient = Literal["plain", "stl", "dreg"]


class WeightObjective:
    """A bound on log p(x) from log-weights.

    Args:
        bookkeeping: see the module's head
        functional: `mean` (ELBO), `log_mean_exp` (IWAE) or `renyi`
        num_samples: S, chains per datum
        alpha: order of the Renyi bound; 1 is the ELBO, 0 IWAE, -inf the largest weight
        gradient: `plain`; or, without a chain, `stl` (sticking the landing: log q held fixed in its parameters) or
            `dreg` (doubly reparameterised, Tucker et al. 2019)
        baseline: of the score function, `leave_one_out` or `none`

    Raises:
        ValueError: a number is out of range, or two options contradict each other
    """

    def __init__(
        self,
        bookkeeping: Bookkeeping,
        functional: FunctionalName = "mean",
        num_samples: int = 1,
        alpha: float = 0.5,
        gradient: Gradient = "plain",
        baseline: Baseline = "leave_one_out",
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

    def __call__(self, model: Model, sampler: Sampler, x: Tensor, likelihood_weight: float = 1.0) -> ObjectiveOutput:
        """Run S chains per datum and weigh them; `sampler.evaluations` evaluations of the decoder for S * B vectors."""
        create_graph = torch.is_grad_enabled()
        posterior = model.posterior(x)
        path = make_path(posterior, self._log_initial(model, posterior, x), model.joint(x, likelihood_weight), sampler)
        start = posterior.rsample((self.num_samples,))
        trajectory = sampler(start, path, create_graph=create_graph)
        weights = log_weights(trajectory, self.bookkeeping, sampler, path)
        bound = self.functional(weights, 0)
        differentiated = self._doubly_reparameterised(weights, start) if self.gradient == "dreg" else bound
        score_loss = None
        if create_graph and draws_decisions(sampler):
            info = trajectory.info
            score_loss = -score_term(self.functional, weights, info.log_alpha + info.log_choice, self.baseline).mean()
        return ObjectiveOutput(
            loss=with_value(-bound.mean(), -differentiated.mean(), score_loss),
            score_loss=score_loss,
            bound=bound.detach(),
            log_weights=weights.detach(),
            initial=detach(trajectory.initial),
            final=detach(trajectory.final),
            info=trajectory.info._replace(
                log_alpha=trajectory.info.log_alpha.detach(), log_choice=trajectory.info.log_choice.detach()
            ),
            evaluations=path.evaluations,
        )

    def validate(self, sampler: Sampler) -> list[str]:
        """Refuse what is unsound or pointless (ValueError with the remedy); return notes on the rest."""
        refuse(self.bookkeeping, sampler)
        if self.baseline == "leave_one_out" and draws_decisions(sampler) and self.num_samples < 2:
            raise ValueError(
                f"num_samples={self.num_samples}: the gradient through accept and reject decisions needs at least 2 "
                "chains per datum for its leave-one-out baseline; set objective.num_samples=2 or more"
            )
        if sampler.precondition == "adapted" and self.num_samples < 2:
            raise ValueError(
                f"num_samples={self.num_samples}: an adapted scale is the spread of the chains of a datum; "
                "set objective.num_samples=2 or more, or sampler.precondition=encoder"
            )
        found = notes(self.bookkeeping, sampler)
        if self.functional_name == "log_mean_exp" and self.num_samples == 1:
            found.append("objective.num_samples=1: the importance-weighted bound of one sample is the ELBO")
        if self.functional_name == "log_mean_exp" and self.gradient == "stl":
            found.append("objective.gradient=stl: biased for the importance-weighted bound; dreg is not")
        if self.functional_name == "renyi" and self.alpha < 0:
            found.append(f"objective.alpha={self.alpha}: below 0 the Renyi objective bounds log p(x) on neither side")
        return found

    def _log_initial(self, model: Model, posterior: Posterior, x: Tensor) -> LogDensity:
        """log q(z | x), its parameters held fixed for the gradients that want that."""
        if self.gradient == "plain":
            return posterior.log_prob
        with torch.no_grad():
            return model.posterior(x).log_prob

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
        context=torch.cat([mean, scale.log()], -1),
        draw_initial=posterior.rsample,
    )


def log_weights(trajectory: Trajectory, bookkeeping: Bookkeeping, sampler: Sampler, path: AnnealedPath) -> Tensor:
    """log w of each chain, (S, B)."""
    ends = trajectory.final.log_final - trajectory.initial.log_initial
    info = trajectory.info
    if bookkeeping == "none":
        return ends
    if bookkeeping == "reversal":
        return ends + info.log_reversal.sum(0)
    assert path.context is not None
    log_reverse = sampler.reverse.log_prob(info.accepted, trajectory.final.z, path.context)
    return ends + info.log_path.sum(0) + log_reverse


def draws_decisions(sampler: Sampler) -> bool:
    """Whether something is drawn without a gradient, so that the score-function term is needed."""
    return sampler.is_adjusted or any(kernel.proposal.draws_choice for kernel in sampler.steps)


def with_value(value: Tensor, differentiated: Tensor, score_loss: Tensor | None) -> Tensor:
    """A scalar of the given value, with the gradient of `differentiated` plus that of `score_loss`."""
    loss = value if value is differentiated else value.detach() + differentiated - differentiated.detach()
    return loss if score_loss is None else loss + score_loss - score_loss.detach()


def detach(point: Point) -> Point:
    """The point without its graph."""
    return Point(*(None if t is None else t.detach() for t in point))  # pyright: ignore[reportArgumentType]
