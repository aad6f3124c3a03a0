"""Memory that does not suffice: one line that says what to lower, a status, and a checkpoint that is kept."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from metvae_cli.objectives.weights import WeightObjective
from metvae_cli.training.checkpoint import load_checkpoint
from tests.runs import TINY, command, environment, infer, metvae, train

# More than the address space of any machine holds: the allocator says no at once.
ABSURD = "1000000000000"


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
