"""Memory that does not suffice: one line on what to lower or to ask for, a status, a checkpoint that is kept."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from metvae_cli.evaluation.exact import exact_likelihood
from metvae_cli.models.decoders import MLPDecoder
from metvae_cli.models.encoders import MLPEncoder
from metvae_cli.models.likelihoods import BernoulliLikelihood
from metvae_cli.models.priors import StandardNormal
from metvae_cli.models.vae import VAE
from metvae_cli.objectives.weights import WeightObjective
from metvae_cli.training.checkpoint import load_checkpoint
from tests.faults.memory import MEGABYTE, peak_growth
from tests.runs import TINY, command, environment, files, infer, metvae, train

# More than the address space of any machine holds: the allocator says no at once.
ABSURD = "1000000000000"
BILLION = 10**9
EVALUATED = {
    "importance.num_samples": 10_000_000,
    "importance.chunk": 100_000,
    "ais.num_temperatures": 10_000_000,
    "ais.num_chains": 100_000,
    "bdmc.chunk": 100_000,
    "exact.points": 1_000_000,
    "sampler.num_chains": 1000,
}
SAMPLED = {"count": 10_000, "data": 1000, "steps": 1000, "neighbours": 1000, "frames": 1000}
INFERRED = {"evaluation.draws": 10_000_000, "evaluation.chains": 10_000, "evaluation.walk": 100_000}
ASKED = [
    *(("evaluate", "run=run", key, largest) for key, largest in EVALUATED.items()),
    *(("sample", "run=run", key, largest) for key, largest in SAMPLED.items()),
    *(("infer", "target=banana", key, largest) for key, largest in INFERRED.items()),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def failure(capsys: pytest.CaptureFixture[str], folder: str, status: int, *expected: str) -> None:
    """A run that failed for lack of memory."""
    assert status == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    line, found = printed.splitlines()[-1], json.loads(Path(folder, "status.json").read_text())
    assert found["status"] == "failed"
    for part in ("out of memory (tried to allocate ", *expected):
        assert part in line
        assert part in found["reason"]


def test_what_to_lower_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    many = f"objective.num_samples={ABSURD}"
    lower = ("lower dataset.batch_size, objective.num_samples", "trainer.checkpoint_chain=true")
    failure(capsys, "run", train(many, "hydra.run.dir=run"), *lower)
    assert load_checkpoint(Path("run/checkpoints/last.pt"))["state"]["iteration"] == 0
    failure(capsys, "inferred", infer(many, "hydra.run.dir=inferred"), "lower batch_size, objective.num_samples")
    failure(capsys, "wide", train(f"encoder.hidden=[{ABSURD}]", "hydra.run.dir=wide"))


def test_a_device_without_memory_keeps_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call, calls = WeightObjective.__call__, iter(range(1, 1000))

    def full(self: WeightObjective, *arguments: Any) -> Any:
        if next(calls) == 30:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which\n"
                "1.2 GiB is free. If reserved but unallocated memory is large try setting ...\n"
            )
        return call(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(WeightObjective, "__call__", full)
        failure(capsys, "run", train("hydra.run.dir=run"), "20.00 gib): lower dataset.batch_size")
    assert load_checkpoint(Path("run/checkpoints/last.pt"))["state"]["epoch"] == 1
    assert metvae("train", "resume=run", "trainer.checkpoint_chain=true") == 0


# Once the first checkpoint is there, this process may not have more memory than it has, but for a little.
LIMITED = """\
import resource, sys
from pathlib import Path
from metvae_cli import cli
from metvae_cli.training.trainer import Trainer
save = Trainer.save
def limited(self, name):
    save(self, name)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, resource.RLIM_INFINITY))
Trainer.save = limited
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell how much memory is in use")
def test_a_process_that_may_have_no_more_says_what_to_lower(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", *TINY, "objective.num_samples=20000", "dataset.batch_size=500", "hydra.run.dir=run")
    done = subprocess.run([command()[0], "-c", LIMITED, *words], env=environment(), capture_output=True, text=True)
    print(done.stderr, file=sys.stderr, end="")
    failure(capsys, "run", done.returncode, "lower dataset.batch_size")
    assert load_checkpoint(Path("run/checkpoints/last.pt"))["state"]["iteration"] == 0


@pytest.mark.parametrize(("command", "of", "key", "largest"), ASKED, ids=[f"{row[0]} {row[2]}" for row in ASKED])
def test_what_does_not_fit_is_refused_with_what_does(
    command: str, of: str, key: str, largest: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metvae(command, of, f"{key}={BILLION}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{key}={BILLION}: must be at most {largest}" in line
    assert files(Path()) == set()


@pytest.mark.parametrize("key", ["steps", "neighbours", "frames"])
def test_two_numbers_that_make_too_large_a_picture_are_both_named(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert metvae("sample", "run=run", "data=1000", f"{key}=1000") == 2
    assert f"data=1000 {key}=1000: are 1000000 images" in capsys.readouterr().err


def test_draws_without_room_for_them_are_told_before_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Kept one by one they would take all memory there is, hours later."""
    assert train("sampler=langevin", "objective=metvae", "hydra.run.dir=run") == 0
    asked = {
        f"sampler.num_draws={ABSURD}": ("estimators=[]", "diagnostics=[sampler]"),
        f"bdmc.data={ABSURD}": ("estimators=[bdmc]", "diagnostics=[]"),
    }
    for word, words in asked.items():
        assert metvae("evaluate", "run=run", *words, word) == 1
        assert "out of memory (tried to allocate " in capsys.readouterr().err.splitlines()[-1], word
    assert infer(f"evaluation.chain_draws={ABSURD}") == 1
    assert "out of memory (tried to allocate " in capsys.readouterr().err.splitlines()[-1]


class Enough(Exception):
    """What stops a quadrature."""


def test_a_fine_grid_takes_no_room() -> None:
    """Four hundred million points, of which some are made at a time."""
    model = VAE(StandardNormal(2), MLPEncoder((4,), 2, [3]), MLPDecoder(2, (4,), [3]), BernoulliLikelihood()).double()
    data = [(torch.arange(2), torch.ones(2, 4, dtype=torch.float64))]

    def stop(share: float) -> None:
        if share:
            raise Enough

    def begin() -> None:
        with pytest.raises(Enough):
            exact_likelihood(model, data, 20_001, stop)

    assert peak_growth(begin) < 2000 * MEGABYTE  # the whole grid is 6400
