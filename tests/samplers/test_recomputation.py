"""A chain whose steps are computed again in the backward pass: the same numbers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.contenders import latents_decoded
from metvae_cli.build import Experiment
from metvae_cli.errors import RunError
from metvae_cli.kernels.random_walk import RandomWalk
from metvae_cli.models.vae import VAE
from metvae_cli.samplers import recomputation
from metvae_cli.training.whole_batch_draws import WholeBatchDraws
from tests.samplers.small_chains import make

CLASSIC = ("sampler=hmc", "objective=metvae")
METHODS = {
    "hmc": ("experiment=digits_metvae_hmc",),
    "lmcvae": ("experiment=digits_lmcvae",),
    "amcvae": ("experiment=digits_amcvae",),
    "uha": ("experiment=digits_uha",),
    "hvae": ("experiment=digits_hvae",),
    "flow": ("experiment=digits_metvae_flow",),
    "fresh flow": ("objective=metvae", "sampler=flow", "sampler.noise=fresh", "sampler.learn_coin=true"),
    "lifted flow": ("objective=metvae", "sampler=flow", "sampler.direction=lifted"),
    "langevin": ("objective=metvae", "sampler=langevin", "sampler.precondition=encoder"),
    "partial": ("objective=metvae", "sampler=hmc_partial", "sampler.noise=fixed", "sampler.learn_persistence=true"),
    "random walk": ("objective=metvae", "sampler=random_walk", "sampler.schedule=learned"),
    "independent": ("objective=metvae", "sampler=independent", "encoder.head=full"),
    "independent flow": ("objective=metvae", "sampler=independent_flow", "sampler.condition_on_x=true"),
    "learned reverse": (*CLASSIC, "sampler.reverse=learned", "sampler.acceptance=metropolis"),
    "exact reverse": (*CLASSIC, "sampler.reverse=exact"),
    "clone": (*CLASSIC, "sampler.cloned_decoder=true", "sampler.num_leapfrog=2"),
    "detached": (*CLASSIC, "sampler.detach_forces=true"),
    "stopped": ("experiment=digits_metvae_stopped",),
    "mean of stops": ("experiment=digits_metvae_stopped", "objective.functional=mean", "sampler.reverse=uniform"),
    "enumerated": (*CLASSIC, "sampler.decisions=enumerated"),
    "one chain": (*CLASSIC, "objective.baseline=running", "objective.num_samples=1"),
    "vamp": (*CLASSIC, "prior=vamp", "prior.num_components=3", "sampler.schedule=linear"),
}


class Result(NamedTuple):
    """numbers: value, gradient of the score function, gradient. made: times that something was decoded."""

    numbers: list[Tensor]
    evaluations: int
    made: int
    stream: Tensor


@contextmanager
def every_decoder(model: VAE) -> Iterator[list[list[Tensor]]]:
    """The calls of the decoder, and of its copy if there is one."""
    decoders = [model.decoder, *([] if model.clone is None else [model.clone[1]])]
    with ExitStack() as stack:
        yield [stack.enter_context(latents_decoded(cast(nn.Module, decoder))) for decoder in decoders]


def result(experiment: Experiment, data: int = 6, rows: WholeBatchDraws | None = None) -> Result:
    """One iteration's gradients, taken as the trainer takes them: only the forward pass is inside of `rows`."""
    learner = experiment.learner
    parameters = [*learner.model.parameters(), *learner.sampler.parameters()]
    x = learner.dataset.batch(torch.arange(data))
    torch.manual_seed(1)
    with every_decoder(learner.model) as decoded:
        if rows is None:
            output = learner.objective(learner.model, learner.sampler, x)
        else:
            with rows:
                output = learner.objective(learner.model, learner.sampler, x[rows.rows])
        stream = torch.get_rng_state()
        found = []
        if output.score_loss is not None:
            found += torch.autograd.grad(output.score_loss, parameters, retain_graph=True, allow_unused=True)
        found += torch.autograd.grad(output.loss, parameters, allow_unused=True)
    assert torch.equal(torch.get_rng_state(), stream), "a backward pass has moved the random stream"
    numbers = [output.loss.detach(), output.bound, *(gradient for gradient in found if gradient is not None)]
    return Result(numbers, output.evaluations, sum(len(z) for passes in decoded for z in passes), stream)


def are_equal(one: Result, other: Result) -> bool:
    return len(one.numbers) == len(other.numbers) and all(map(torch.equal, one.numbers, other.numbers))


AT_ONCE = ("hmc", "stopped", "lmcvae", "uha", "flow", "langevin", "partial", "exact reverse", "clone")
ALL = [name if name in AT_ONCE else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]


@pytest.mark.parametrize("method", ALL)
def test_every_number_is_that_of_a_chain_that_is_kept(method: str) -> None:
    """Bit by bit; what the method needs is counted as before, and each point of the chain is decoded once more."""
    kept, again = (result(make(*METHODS[method], checkpoints=checkpoints)) for checkpoints in (False, True))
    assert are_equal(kept, again)
    assert any(gradient.abs().max() > 0 for gradient in kept.numbers[2:])
    assert torch.equal(kept.stream, again.stream)
    assert again.evaluations == kept.evaluations
    assert kept.made == kept.evaluations < again.made


def test_one_more_pass_for_each_backward_pass() -> None:
    """The score function has one of its own, in the iterations that log."""
    experiment = make("experiment=digits_uha", "objective.num_samples=1", checkpoints=True)
    assert result(experiment).made == 2 * 4 * 6
    experiment = make("experiment=digits_metvae_hmc", checkpoints=True)
    assert result(experiment).made <= 3 * 4 * 6 * experiment.learner.objective.num_samples


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[recomputation._Stretch]:
    """The stretches that are computed again, in order."""
    made: list[recomputation._Stretch] = []
    recompute = recomputation._Stretch._recompute

    def noted(self: recomputation._Stretch) -> None:
        made.append(self)
        recompute(self)

    monkeypatch.setattr(recomputation._Stretch, "_recompute", noted)
    return made


def differentiate(experiment: Experiment) -> None:
    learner = experiment.learner
    learner.objective(learner.model, learner.sampler, learner.dataset.batch(torch.arange(6))).loss.backward()


@pytest.mark.parametrize("method", ["hmc", "lmcvae", "flow"])
def test_each_stretch_is_computed_again_once(method: str, passes: list[recomputation._Stretch]) -> None:
    differentiate(make(*METHODS[method], "sampler.num_steps=8", checkpoints=True))
    assert len(passes) == len(set(passes)) == 1 + 8


def test_gradients_made_by_another_thread_cost_no_more_than_two(
    passes: list[recomputation._Stretch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device: a backward pass prefers what was made late, and each thread counts for itself."""
    saving, grad, active = recomputation._Stretch.saving, torch.autograd.grad, []

    @contextmanager
    def noted(self: recomputation._Stretch) -> Iterator[None]:
        active.append(self)
        with saving(self):
            yield
        active.pop()

    def elsewhere(*arguments: Any, **named: Any) -> Any:
        def work() -> Any:
            with torch.enable_grad(), saving(active[-1]):
                return grad(*arguments, **named)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(work).result()

    monkeypatch.setattr(recomputation._Stretch, "saving", noted)
    monkeypatch.setattr(torch.autograd, "grad", elsewhere)
    differentiate(make(*METHODS["lmcvae"], "sampler.num_steps=8", checkpoints=True))
    assert len(passes) <= 2 * (1 + 8)


# -------------------------------------------------------------------- wrong versions


@contextmanager
def other_streams(self: object) -> Iterator[None]:
    """In place of restoring them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        yield


@pytest.mark.parametrize("method", ["hmc", "lmcvae", "flow", "random walk"])
def test_other_random_numbers_in_the_second_pass_are_an_error(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputation._Surroundings, "restored", other_streams)
    with pytest.raises(RunError, match=r"trainer\.checkpoint_chain=true: a step of the chain came out otherwise"):
        result(make(*METHODS[method], checkpoints=True))


def test_the_gradient_would_be_wrong_without_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge of equal gradients, shown a chain that draws anew."""
    kept = result(make(*METHODS["hmc"], checkpoints=False))
    monkeypatch.setattr(recomputation._Surroundings, "restored", other_streams)
    monkeypatch.setattr(recomputation, "_agreement", lambda found, expected: torch.ones(()))
    again = result(make(*METHODS["hmc"], checkpoints=True))
    assert torch.equal(kept.numbers[0], again.numbers[0])
    assert not are_equal(kept, again)


class Numpy(RandomWalk):
    """A plugin that draws in a way that nobody restores."""

    def propose(self, point, path, beta, *, create_graph, noise=None):
        drawn = torch.from_numpy(np.random.standard_normal(point.z.shape)).to(point.z)
        return super().propose(point, path, beta, create_graph=create_graph, noise=drawn)


def test_a_plugin_that_does_not_repeat_itself_is_told() -> None:
    experiment = make("sampler=random_walk", checkpoints=True)
    for kernel in experiment.learner.sampler.steps:
        kernel.proposal.__class__ = Numpy
    with pytest.raises(RunError, match=r"plugins=.* set it to false"):
        result(experiment)


# -------------------------------------------------------------------- a share of a batch


@pytest.mark.parametrize("method", ["hmc", "flow"])
def test_a_share_of_a_batch_draws_its_rows_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = WholeBatchDraws(2, 5, 6)
    kept, again = (result(make(*METHODS[method], checkpoints=checkpoints), 6, rows) for checkpoints in (False, True))
    assert are_equal(kept, again)
    monkeypatch.setattr(recomputation, "current_modes", lambda: [])
    with pytest.raises(RunError, match="came out otherwise"):
        result(make(*METHODS[method], checkpoints=True), 6, rows)


# -------------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("experiment=digits_hoffman",), "no gradient passes through this chain"),
        (("experiment=digits_vcd",), "no gradient passes through this chain"),
        (("experiment=digits_vae", "sampler.num_steps=0"), "there is no chain"),
        (("sampler=none", "sampler.num_steps=0", "objective=cubo"), "there is no chain"),
        ((*CLASSIC, "sampler.reverse=exact"), "sampler.reverse=exact looks back on is kept"),
    ],
)
def test_where_it_has_no_effect_there_is_a_note(words: tuple[str, ...], said: str) -> None:
    notes = [note for note in make(*words, checkpoints=True).notes if "checkpoint_chain" in note]
    assert len(notes) == 1
    assert said in notes[0]
    assert not any("checkpoint_chain" in note for note in make(*words, checkpoints=False).notes)


def test_chains_without_a_gradient_are_computed_once() -> None:
    experiment = make("experiment=digits_metvae_hmc", checkpoints=True)
    learner = experiment.learner
    with every_decoder(learner.model) as decoded, torch.no_grad():
        output = learner.objective(learner.model, learner.sampler, learner.dataset.batch(torch.arange(6)))
    assert sum(len(z) for passes in decoded for z in passes) == output.evaluations
    assert result(make("experiment=digits_hoffman", checkpoints=True)).made == 5 * 6
