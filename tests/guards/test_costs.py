"""Guards of what an iteration costs, in numbers that no machine changes: nobody adds to them unawares.

Latent vectors decoded are exact. The others are upper bounds, of a kind of method where that will do: a method that
becomes cheaper changes none of them.
"""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from benchmarks.contenders import METHODS, Contender, training, write_images
from benchmarks.floor import log_likelihood, value_and_gradient
from metvae_cli.kernels.base import Kernel
from tests.guards.counting import CHAINS, GUARDED, Saved, decoded, host_reads, make, saved

STEPS = 5
LEAPFROGS = {"vcd": 5}
SAMPLES = {"iwae10": 10, "metvae_hmc": 2, "metvae_flow": 2, "amcvae": 5, "vcd": 2}
APART = ("hoffman", "vcd")  # the decoder learns from z_K, decoded once more with a graph


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 700)


# -------------------------------------------------------------------- wrong versions


def spoil(contender: Contender, wrong: type) -> Contender:
    """The contender with a wrong version of its kernels' steps."""
    for kernel in contender.experiment.learner.sampler.steps:
        kernel.__class__ = type("Wrong", (wrong, type(kernel)), {})
    return contender


class Twice(Kernel):
    """Decodes each point a second time, and keeps the graph of it."""

    def step(self, point, path, beta, *, create_graph):
        found, info = super().step(point, path, beta, create_graph=create_graph)  # pyright: ignore
        again = path.evaluate(found.z, create_graph=create_graph)
        changed = found._replace(log_final=found.log_final + 0 * again.log_final)
        if found.score_final is not None and again.score_final is not None:
            changed = changed._replace(score_final=found.score_final + 0 * again.score_final)
        return changed, info


class Asking(Kernel):
    """Looks at a number in the chain."""

    def step(self, point, path, beta, *, create_graph):
        found, info = super().step(point, path, beta, create_graph=create_graph)  # pyright: ignore
        return found if info.accept_prob.mean().item() >= 0 else point, info


class Listing(Kernel):
    """The same by a function that is no operation of torch's."""

    def step(self, point, path, beta, *, create_graph):
        found, info = super().step(point, path, beta, create_graph=create_graph)  # pyright: ignore
        return found if info.accept_prob.flatten().tolist()[0] >= 0 else point, info


# -------------------------------------------------------------------- latent vectors decoded


def is_frugal(contender: Contender, method: str) -> bool:
    """(1 + K L) S B vectors, with S B more where the decoder learns apart; and none of them twice but those."""
    calls = decoded(contender)
    samples, steps = SAMPLES.get(method, 1), STEPS if method in CHAINS else 0
    passes = 1 + steps * LEAPFROGS.get(method, 1)
    together = samples * len(contender.x)
    if [len(call) for call in calls] != [together] * (passes + (method in APART)):
        return False
    return len(torch.cat(calls).unique(dim=0)) >= passes * together


@pytest.mark.parametrize("method", GUARDED)
def test_latent_vectors_decoded(images: Path, method: str) -> None:
    assert is_frugal(make(images, method, STEPS), method)


@pytest.mark.parametrize("method", ["lmcvae", "metvae_flow", "hoffman"])
def test_decoding_twice_is_seen(images: Path, method: str) -> None:
    assert not is_frugal(spoil(make(images, method, STEPS), Twice), method)


# -------------------------------------------------------------------- tensors saved

# Beside what one value and gradient of the decoder keeps (for flows one value), a step may keep so many tensors, and
# bytes of so many positions (S, B, D): momenta, log q and log p(z) with their gradients, acceptance. Of a flow, layers
# and masked weights too.
TENSORS = {"chain": 70, "flow": 180, "first_order": 0}
POSITIONS = {"chain": 16, "flow": 80, "first_order": 0}
SIZES = {"fc400": ("latent_dim=16", "dataset.batch_size=50"), "conv": ("latent_dim=16", "dataset.batch_size=4")}


class Growth(NamedTuple):
    """Of what autograd holds, by a third step: size in bytes and number of tensors, each with what is allowed."""

    size: float
    allowed: float
    tensors: int
    most: int


def decoder_graph(contender: Contender) -> tuple[int, int, int]:
    """Bytes and tensors that one more value and gradient, or value, of the decoder keeps; bytes of a position."""
    model, x, flow = contender.experiment.learner.model, contender.x, contender.kind == "flow"
    z = torch.randn(contender.experiment.learner.objective.num_samples, len(x), 16, requires_grad=True)
    held, kept, present = Saved(model.parameters()), [], []
    with held.watching():
        for _ in range(2):  # the first one keeps what both share
            at = 1 * z
            kept.append(log_likelihood(model, at, x) if flow else value_and_gradient(model, at, x, again=True))
            present.append((held.present, held.held))
    (first, few), (second, many) = present
    return second - first, many - few, z.nbytes


def growth(images: Path, method: str, net: str, wrong: type | None = None) -> Growth:
    """Between two steps and three."""
    two, three = (make(images, method, steps, *SIZES[net], net=net) for steps in (2, 3))
    graph, tensors, position = decoder_graph(three)
    few, many = (saved(one if wrong is None else spoil(one, wrong)) for one in (two, three))
    kind = METHODS[method].kind
    again = kind != "first_order"
    own = sum(p.nbytes for p in three.experiment.learner.sampler.steps[-1].parameters()) if kind == "flow" else 0
    allowed = again * graph + POSITIONS[kind] * position + 2 * own
    return Growth(many.peak - few.peak, allowed, many.most - few.most, again * tensors + TENSORS[kind])


@pytest.mark.parametrize(
    ("net", "method"), [("fc400", method) for method in CHAINS] + [("conv", "lmcvae"), ("conv", "metvae_hmc")]
)
def test_a_step_saves_no_more_than_one_decoder_graph(images: Path, net: str, method: str) -> None:
    found = growth(images, method, net)
    assert found.size <= found.allowed
    assert found.tensors <= found.most


@pytest.mark.parametrize("method", ["lmcvae", "amcvae", "metvae_hmc", "metvae_flow", "uha"])
def test_a_second_graph_is_seen(images: Path, method: str) -> None:
    found = growth(images, method, "fc400", Twice)
    assert found.size > found.allowed


# -------------------------------------------------------------------- reads by the host

# Each makes a device's queue run empty. Files, with the most reads in an iteration and what they are for.
READS = {
    "training/optimizer.py": 1,  # whether the gradient is to be clipped
    "training/trainer.py": 2,  # whether norm and loss are finite
    "kernels/adaptation.py": STEPS,  # whether the acceptance of a step is finite
    "densities.py": STEPS,  # on a CPU only: whether every chain moved
}


def excess(contender: Contender) -> dict[str, int]:
    """Places that read more often than the table says, in an iteration of the training loop."""
    run = training(contender)
    run(1)  # what is done once, such as the optimizer's state, is not of each iteration
    with host_reads() as places:
        run(1)
    return {place: count for place, count in places.items() if count > READS.get(place, 0)}


@pytest.mark.parametrize("method", GUARDED)
def test_reads_by_the_host(images: Path, method: str) -> None:
    assert excess(make(images, method, STEPS)) == {}


@pytest.mark.parametrize("wrong", [Asking, Listing])
def test_a_read_inside_the_chain_is_seen(images: Path, wrong: type) -> None:
    assert excess(spoil(make(images, "metvae_hmc", STEPS), wrong)) == {"samplers/chain.py": STEPS}


def on_no_device(contender: Contender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradient where tensors have no values: all that depends on one is an error."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # which knows devices with values only
    learner = contender.experiment.learner
    model, sampler = learner.model.to("meta"), learner.sampler.to("meta")
    learner.objective(model, sampler, contender.x.to("meta")).loss.backward()


@pytest.mark.parametrize("method", GUARDED)
def test_no_read_in_loss_and_gradient_but_on_a_cpu(images: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branches that are taken on other devices."""
    on_no_device(make(images, method, STEPS), monkeypatch)


@pytest.mark.parametrize("wrong", [Asking, Listing])
def test_a_read_would_fail_there(images: Path, wrong: type, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match=r"meta|Meta"):
        on_no_device(spoil(make(images, "lmcvae", STEPS), wrong), monkeypatch)
