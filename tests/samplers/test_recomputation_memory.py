"""A chain whose steps are computed again in the backward pass takes memory that does not grow with them."""

import gc

import pytest
import torch
from torch import Tensor

from benchmarks.measuring import LiveBytes
from metvae_cli.samplers import recomputation
from tests.samplers.small_chains import make

WIDE = ("decoder.hidden=[64]", "encoder.hidden=[16]", "latent_dim=4", "sampler.per_step=false")


def peak(num_steps: int, checkpoints: bool, *words: str) -> tuple[int, int]:
    """Bytes of all tensors at a time, at most, in an iteration of 50 data; those of a position of its chains."""
    steps = f"sampler.num_steps={num_steps}"
    learner = make(*words, *WIDE, steps, checkpoints=checkpoints).learner
    parameters = [*learner.model.parameters(), *learner.sampler.parameters()]
    x = learner.dataset.batch(torch.arange(50))
    gc.disable()  # what only the collector would find counts as held
    try:
        with LiveBytes() as live:
            output = learner.objective(learner.model, learner.sampler, x)
            size = output.final.z.nbytes
            gradients = torch.autograd.grad(output.loss, parameters, allow_unused=True)
            del output, gradients
    finally:
        gc.enable()
    assert live.present == 0, "something is held after the iteration"
    return live.peak, size


CLASSIC = ("sampler=hmc", "objective=metvae")  # decisions that are drawn
GROWING = {
    "hmc": ("experiment=digits_metvae_hmc",),
    "lmcvae": ("experiment=digits_lmcvae",),
    "amcvae": ("experiment=digits_amcvae",),
    "uha": ("experiment=digits_uha",),
    "hvae": ("experiment=digits_hvae",),
    "random walk": ("objective=metvae", "sampler=random_walk"),
    # one flow for all steps
    "flow": ("objective=metvae", "sampler=flow", "sampler.noise=fresh", "sampler.direction=forwards"),
    "learned reverse": (*CLASSIC, "sampler.reverse=learned"),
}
QUICK = ("hmc", "lmcvae", "flow")


@pytest.mark.parametrize(
    "method", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in GROWING]
)
def test_memory_does_not_grow_with_the_steps(method: str) -> None:
    """But by a point per step, at most four positions, and 24 numbers per chain; a chain that is kept grows by more."""
    (few, size), (many, _) = (peak(count, True, *GROWING[method]) for count in (5, 25))
    allowed = 20 * (4 * size + 24 * size // 4)
    assert many - few < allowed
    (kept_few, _), (kept_many, _) = (peak(count, False, *GROWING[method]) for count in (5, 10))
    assert 4 * (kept_many - kept_few) > 2 * allowed


def test_a_graph_that_is_held_by_what_it_saves_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a circle passes through torch's own memory, where Python's collector does not look."""

    def pack(self: recomputation._Stretch, tensor: Tensor) -> int:
        self.saved.append(tensor)
        return len(self.saved) - 1

    monkeypatch.setattr(recomputation._Stretch, "_pack", pack)
    with pytest.raises(AssertionError, match="something is held"):
        peak(2, True, *GROWING["lmcvae"])


def test_a_hundred_steps_need_no_more_than_two_that_are_kept() -> None:
    (many, size), (two, _) = peak(100, True, *GROWING["lmcvae"]), peak(2, False, *GROWING["lmcvae"])
    assert many - 100 * (4 * size + 24 * size // 4) < two
    assert peak(3, False, *GROWING["lmcvae"])[0] > 1.15 * two
