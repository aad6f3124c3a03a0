"""Gradients of whole models, every parameter of model and sampler, against finite differences with common numbers.

For what the enumerated oracle of one latent coordinate leaves out: moves in the encoder's coordinates, what flows and
guesses are told of x, tempering, learned temperatures, step sizes per dimension, independent proposals.
"""

import pytest
import torch
from torch import Tensor

from metvae_cli.build import build_experiment
from metvae_cli.samplers.chain import Sampler
from metvae_cli.training.state import Learner
from tests.runs import configuration

pytestmark = pytest.mark.usefixtures("double")
SMALL = ("encoder.hidden=[4]", "decoder.hidden=[4]", "latent_dim=2", "sampler.num_steps=2", "trainer.device=cpu")
SUMMED = ("objective=metvae", "objective.functional=log_mean_exp", "sampler.decisions=enumerated")
UNADJUSTED = ("sampler.acceptance=none", "objective=annealed", "objective.num_samples=1")
FLOW = ("sampler=flow", "sampler.hidden=[4]", "sampler.condition_on_x=true", "sampler.precondition=encoder")
CASES = {
    "the default": (),
    "hvae, one tempering per step": ("sampler=hmc_tempered", "sampler.tempering=free", *UNADJUSTED),
    "uha, whitened, learned temperatures and persistence": (
        *("sampler=hmc_partial", "sampler.schedule=learned", "sampler.precondition=encoder"),
        *("sampler.learn_persistence=true", *UNADJUSTED),
    ),
    "lmcvae, step sizes per dimension": (
        *("sampler=langevin", "sampler.schedule=sigmoidal", "sampler.per_dimension=true", *UNADJUSTED),
    ),
    "independent": ("sampler=independent", *SUMMED),
    "independent flow": ("sampler=independent_flow", "sampler.hidden=[4]", *SUMMED),
    "flow told of x, whitened": (*FLOW, *SUMMED),
    "a learned guess": ("sampler=langevin", "sampler.precondition=encoder", "sampler.reverse=learned", *SUMMED),
}


def learner_of(words: tuple[str, ...]) -> Learner:
    learner = build_experiment(configuration(*SMALL, *words), []).learner
    learner.model.double()
    learner.sampler.double()
    return learner


def deviations(learner: Learner) -> list[float]:
    """Of each parameter, the slope of the loss along a random direction against the gradient's, relative."""
    x = learner.dataset.batch(torch.arange(3)).double()
    parameters = [*learner.model.parameters(), *learner.sampler.parameters()]

    def loss() -> Tensor:
        torch.manual_seed(0)
        return learner.objective(learner.model, learner.sampler, x).loss

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    found, step = [], 1e-6
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter += step * direction
            above = loss().item()
            parameter -= 2 * step * direction
            below = loss().item()
            parameter += step * direction
        slope = (above - below) / (2 * step)
        found.append(abs((gradient * direction).sum().item() - slope) / (1e-3 + abs(slope)))
    return found


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_the_gradient_is_that_of_finite_differences(words: tuple[str, ...]) -> None:
    found = deviations(learner_of(words))
    assert all(value < 1e-4 for value in found), found  # NaN is not below


def test_a_frame_that_is_held_fixed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong gradient: as if the encoder's scale, in which the moves are made, were no function of it."""
    frame = Sampler.frame
    monkeypatch.setattr(Sampler, "frame", lambda self, mean, scale: frame(self, mean.detach(), scale.detach()))
    assert max(deviations(learner_of(()))) > 1e-2
