"""The table at the end: what it says, what it tells one to type, and that it never decides how a run went."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metvae_cli import cli
from tests.runs import TINY, own_globals

SHORT = [word for word in TINY if "hidden" not in word and "latent_dim" not in word and "max_epochs" not in word]
SHORT += ["trainer.max_epochs=1"]
METVAE = [sys.executable, "-m", "metvae_cli.cli"]


def train(*words: str) -> int:
    return cli.main(["train", *SHORT, *words])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with own_globals():
        yield


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("hydra.run.dir=run") == 0
    printed = capsys.readouterr().out
    for words in ("test bound", "test log-likelihood", "Barker: 1/2 for vanishing steps", "step size per step"):
        assert words in printed
    assert "metvae sample run=run" in printed
    assert "tensorboard --logdir run" in printed
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["test/bound"] < -summary["test/nll"] + 1


def test_an_unadjusted_chain_is_not_said_to_accept(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("experiment=digits_lmcvae") == 0
    printed = capsys.readouterr().out
    assert "had there been a Metropolis test" in printed
    assert "tensorboard --logdir outputs" in printed


def test_the_hint_names_the_limit_and_resuming_says_that_nothing_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("hydra.run.dir=run", "trainer.max_iterations=3") == 0
    assert "metvae train resume=run trainer.max_iterations=N" in capsys.readouterr().out
    assert cli.main(["train", "resume=run"]) == 0
    assert "nothing left to train (stopped by max_iterations)" in capsys.readouterr().err


@pytest.mark.slow
def test_hints_for_unusual_paths_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("hydra.run.dir='my dir/x=1'") == 0
    lines = capsys.readouterr().out.splitlines()
    (pictures,) = [line.split(maxsplit=1)[1] for line in lines if line.startswith("pictures")]
    script = pictures.replace("metvae", " ".join(METVAE))
    root = str(Path(cli.__file__).parent.parent)
    subprocess.run(["bash", "-c", script], check=True, env={**os.environ, "PYTHONPATH": root})


def test_an_empty_resume_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("resume=") == 2
    assert "names no directory" in capsys.readouterr().err
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("word", ["hydra.run.dir=/proc/metvae", "trainer.threads=100000", "optimizer.momentum=0.9"])
def test_more_that_is_refused_in_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(word) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("metvae: error: ")


@pytest.mark.slow
def test_nobody_reading_the_table_does_not_decide_how_the_run_went() -> None:
    command = " ".join([*METVAE, "train", *SHORT, "hydra.run.dir=run"])
    root = str(Path(cli.__file__).parent.parent)
    done = subprocess.run(
        ["bash", "-c", f"{command} 2>/dev/null | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.stdout.strip() == "141"
    assert json.loads(Path("run/status.json").read_text())["status"] == "finished"


def test_a_checkpoint_of_another_configuration_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("hydra.run.dir=run") == 0
    stored = Path("run/.hydra/config.yaml")
    stored.write_text(stored.read_text().replace("latent_dim: 8", "latent_dim: 5"))
    capsys.readouterr()
    assert cli.main(["train", "resume=run", "trainer.max_epochs=2"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "does not fit the configuration" in error
    assert json.loads(Path("run/status.json").read_text())["status"] == "finished"
