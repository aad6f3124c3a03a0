"""What is measured without a gradient needs as much memory for 200 steps as for 10: nothing of a step stays.

Memory is that of all tensors that are there at a time, and none is saved for a backward pass that never comes.
"""

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks.measuring import LiveBytes, SavedBytes
from metvae_cli.build import build_experiment
from metvae_cli.densities import AnnealedPath, Point
from metvae_cli.evaluation import annealed_likelihood, annealing
from metvae_cli.evaluation.annealed_likelihood import annealed_importance_sampling, bidirectional, simulate
from metvae_cli.evaluation.annealing import AnnealingSettings
from metvae_cli.evaluation.frozen import freeze
from metvae_cli.evaluation.long_chains import run_long_chains
from metvae_cli.models.vae import VAE
from metvae_cli.objectives.weights import make_path
from metvae_cli.training.state import Learner
from tests.runs import configuration

DATA, CHAINS = 4, 3
FEW = 10


def make(*words: str) -> Learner[VAE]:
    sizes = ("encoder.hidden=[16]", "decoder.hidden=[32]", "latent_dim=5", "trainer.device=cpu")
    return build_experiment(configuration(*sizes, *words), []).learner


def settings(steps: int) -> AnnealingSettings:
    return AnnealingSettings(steps, num_chains=CHAINS, num_leapfrog=1, data=None)


def ais(steps: int) -> Callable[[], Any]:
    """Annealed importance sampling along so many temperatures."""
    learner = make("sampler.num_steps=1")
    model, x = freeze(learner.model, torch.device("cpu")), learner.dataset.batch(torch.arange(DATA))
    return lambda: annealed_importance_sampling(model, [(torch.arange(DATA), x)], settings(steps))


def bdmc(steps: int) -> Callable[[], Any]:
    """Both ways."""
    model = freeze(make("sampler.num_steps=1").model, torch.device("cpu"))
    simulated = simulate(model, DATA, 0)
    return lambda: bidirectional(model, simulated, settings(steps))


def long_chains(steps: int) -> Callable[[], Any]:
    """One draw after so many rounds, and as many of warm-up."""
    learner = make("sampler=hmc", "sampler.num_steps=1", "sampler.step_size_rule=dual_averaging")
    x = learner.dataset.batch(torch.arange(DATA))
    with torch.no_grad():
        posterior = learner.model.posterior(x)
        start = posterior.sample(torch.Size((CHAINS,)))
        path = make_path(posterior, posterior.log_prob, learner.model.joint(x), learner.sampler)
    return lambda: run_long_chains(learner.sampler, path, start, 1, steps, learner.adaptations, thin=steps)


def validation(*words: str) -> Callable[[int], Callable[[], Any]]:
    """The objective as validation asks for it, with a chain of so many steps."""

    def with_steps(steps: int) -> Callable[[], Any]:
        learner = make(*words, f"sampler.num_steps={steps}", "sampler.per_step=false")
        x = learner.dataset.batch(torch.arange(DATA))

        @torch.no_grad()
        def run() -> Any:
            return learner.objective(learner.model, learner.sampler, x)

        return run

    return with_steps


KINDS: dict[str, Callable[[int], Callable[[], Any]]] = {
    "ais": ais,
    "bdmc": bdmc,
    "long chains": long_chains,
    "hmc": validation("experiment=digits_metvae_hmc"),
    "lmcvae": validation("experiment=digits_lmcvae"),
    "amcvae": validation("experiment=digits_amcvae"),
    "hoffman": validation("experiment=digits_hoffman"),
}
# Bytes that a step may leave: of annealing, its temperature in double precision, twice; of long chains, nothing; of
# validation, 20 numbers per chain: its record, one by one and put together.
LEFT = {"ais": 16, "bdmc": 16, "long chains": 0}
RECORD = 20 * 4


LONG = ("bdmc", "hmc", "amcvae", "hoffman")
SLOW = pytest.mark.slow


class Peak(NamedTuple):
    """Bytes of all tensors that are there at a time, and of those saved for a backward pass."""

    live: int
    saved: int


def peak(run: Callable[[], Any]) -> Peak:
    """Of one run."""
    saved = SavedBytes([])
    gc.collect()
    gc.disable()  # what only the collector would find counts as held
    try:
        with LiveBytes() as live, saved.watching():
            run()
    finally:
        gc.enable()
    return Peak(live.peak, saved.peak)


def grown(kind: str, steps: int) -> tuple[Peak, Peak, int]:
    """Of few steps, of so many, and by how many bytes the tensors of these may be more."""
    few, many = (peak(KINDS[kind](count)) for count in (FEW, steps))
    chains = {"amcvae": 5, "hmc": 2}.get(kind, 1) * DATA
    return few, many, LEFT.get(kind, RECORD * chains) * (steps - FEW)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pilot run as short as the shortest."""
    monkeypatch.setattr(annealing, "PILOT_TEMPERATURES", FEW)
    monkeypatch.setattr(annealed_likelihood, "PILOT_TEMPERATURES", FEW)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=SLOW) if kind in LONG else kind for kind in KINDS])
def test_memory_is_constant_in_the_steps(kind: str) -> None:
    few, many, left = grown(kind, 200)
    assert many.live - few.live <= left
    assert many.saved <= few.saved


@pytest.mark.parametrize("kind", [pytest.param("ais", marks=SLOW), "long chains", "lmcvae"])
def test_points_that_stay_are_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their graphs, as where somebody keeps a history of the chain and does not detach it."""
    evaluate, kept = AnnealedPath.evaluate, []

    def remembered(self: AnnealedPath, z: Tensor, *, create_graph: bool) -> Point:
        with torch.enable_grad():
            kept.append(evaluate(self, z.detach().requires_grad_(), create_graph=True))
        return evaluate(self, z, create_graph=create_graph)

    monkeypatch.setattr(AnnealedPath, "evaluate", remembered)
    few, many, left = grown(kind, 40)
    assert many.live - few.live > left
    assert many.saved > few.saved
