"""Every command of the README runs as it stands there.

The README is read from the top; its commands run in that order in one empty directory, where RUN and FOLDER stand for
what a reader would put there. Training is cut to one short epoch. `make` commands run in the checkout: what they expand
to by default, and in full with the slow tests.
"""

import hashlib
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from metvae_cli import cli
from metvae_cli.data import mnist
from tests.runs import BRIEF

ROOT = Path(__file__).parent.parent
SHORT = ["trainer.max_epochs=1", "trainer.test_samples=5"]
# What makes the other commands short.
MEASURES = {
    "evaluate": [
        "importance.num_samples=20",
        "ais.num_temperatures=5",
        "ais.data=2",
        "bdmc.num_temperatures=5",
        "bdmc.data=2",
        "sampler.data=2",
        "sampler.num_draws=8",
        "sampler.reference_draws=200",
        "latent.data=50",
    ],
    "sample": ["data=2"],
    "infer": list(BRIEF),
}


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def of(program: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in commands() if line.startswith(f"{program} ")]


def test_there_are_no_other_commands() -> None:
    assert {line.split()[0] for line in commands()} == {"make", "metvae", "tensorboard"}
    assert commands()[:2] == ["make train", "make test"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one trained run in it."""
    return tmp_path_factory.mktemp("readme")


@pytest.fixture
def folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """MNIST files of 30 images, in the published format; a kernel of one's own; and the empty directory to be in."""
    data = place / "folder"
    (data / "sampler").mkdir(parents=True, exist_ok=True)
    write_mnist(data, monkeypatch)
    (data / "my_kernels.py").write_text(
        "from metvae_cli.kernels.random_walk import RandomWalk\n\n\nclass MyWalk(RandomWalk):\n    '''Mine.'''\n"
    )
    shipped = (ROOT / "configs" / "sampler" / "random_walk.yaml").read_text()
    mine = shipped.replace("metvae_cli.kernels.random_walk.RandomWalk", "my_kernels.MyWalk")
    (data / "sampler" / "my_kernel.yaml").write_text(mine)
    density = "def log_prob(z):\n    return -0.5 * z.square().sum(-1)\n"
    (data / "my_density.py").write_text(density)
    np.save(data / "x.npy", np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    monkeypatch.syspath_prepend(str(data))
    monkeypatch.chdir(place)
    yield data
    sys.modules.pop("my_kernels", None)


def write_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in mnist.EXPECTED_SHA256:
        images = "images" in name
        sizes = [30, 28, 28] if images else [30]
        head = b"\0\0\x08" + bytes([len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)
        values = torch.randint(0, 256 if images else 10, sizes, dtype=torch.uint8)
        (folder / name).write_bytes(head + values.numpy().tobytes())
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in mnist.EXPECTED_SHA256}
    monkeypatch.setattr(mnist, "EXPECTED_SHA256", sums)


def filled(words: list[str], folder: Path) -> list[str]:
    """A command line with RUN and FOLDER replaced, and training cut short."""
    runs = sorted(Path("outputs/train").glob("*/status.json"))
    words = [word.replace("outputs/train/RUN", str(runs[0].parent) if runs else "") for word in words]
    words = [word.replace("FOLDER", str(folder)) for word in words]
    words = [word.replace("trainer.max_epochs=150", "trainer.max_epochs=2") for word in words]
    if words[0] in MEASURES and "--help" not in words:
        return [*words, *MEASURES[words[0]]]
    if words[0] != "train" or "--help" in words:
        return words
    limits = SHORT if not any(word.startswith("resume=") for word in words) else SHORT[1:]
    if "dataset=array" in words:
        words = [*words, "dataset.num_valid=10", "dataset.num_test=20"]
    if "dataset=mnist" in words:
        words = [*words, "dataset.num_valid=10", "dataset.batch_size=5"]
    return [*words, *limits]


def test_every_metvae_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", *SHORT]) == 0  # what `make train` has done for the reader
    for words in of("metvae"):
        assert cli.main(filled(words, folder)) == 0, (words, capsys.readouterr().err)
    assert len(list(Path("outputs/train").glob("**/summary.json"))) >= 12


def test_tensorboard_starts(folder: Path) -> None:
    """It answers with its address."""
    (words,) = of("tensorboard")
    program = [sys.executable, "-m", "tensorboard.main", *words, "--port", "0"]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        stop = threading.Timer(60, process.kill)
        stop.start()
        try:
            assert any("http://" in line for line in process.stderr)
        finally:
            stop.cancel()
            process.kill()


def test_make_runs_what_it_says() -> None:
    for words in of("make"):
        shown = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert {"train": ".venv/bin/metvae train", "test": ".venv/bin/pytest"}[words[0]] in shown


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_make_train_in_full(tmp_path: Path) -> None:
    """In a copy of the checkout with nothing installed."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    # The words of a make around this test (`make test-slow ARGS=...`) are not those of this one.
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "ARGS")}
    done = subprocess.run(["make", "train"], cwd=tmp_path / "clone", capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stderr
    assert "test log-likelihood" in done.stdout
