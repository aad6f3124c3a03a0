"""`metvae info`: what it reports, and that what is missing is reported too."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from metvae_cli import __version__
from metvae_cli.commands import info
from metvae_cli.errors import ConfigError
from metvae_cli.tracking import run_directory

NAMES = [
    *["metvae", "python", "torch", "torchvision", "hydra-core", "omegaconf", "tensorboard", "scikit-learn"],
    *["zuko", "platform", "cpus", "torch threads", "devices", "configs", "digits", "mnist", "commit"],
]


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert info.main(["--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    facts = report(capsys)
    assert list(facts) == NAMES
    assert facts["metvae"] == __version__
    assert facts["torch"] == version("torch")
    assert facts["torch threads"] == torch.get_num_threads()
    assert facts["digits"] is True
    devices = facts["devices"]
    assert isinstance(devices, list)
    assert devices[0] == "cpu"


def test_text_has_one_aligned_line_for_each_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:15].strip() for line in lines] == NAMES
    assert all(line[13:15] == "  " and line[15] != " " for line in lines)


def test_what_is_missing_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> Path:
        raise ConfigError("no configs")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(info, "config_dir", missing)
    monkeypatch.setattr(info, "PACKAGES", ("no-such-package",))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    facts = report(capsys)
    assert facts["no-such-package"] is facts["configs"] is facts["mnist"] is facts["torch threads"] is None
    assert facts["digits"] is False
    assert "torch does not import" in str(facts["devices"])
    assert info.main([]) == 0
    assert "mnist            none" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"])
@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST"])
def test_mnist_is_found_below_data(
    folder: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data" / folder / name).touch()
    monkeypatch.chdir(tmp_path)
    assert report(capsys)["mnist"] == str(tmp_path / "data" / folder)


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    result = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_commit_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run_directory.py").touch()
    monkeypatch.setattr(run_directory, "__file__", str(tmp_path / "run_directory.py"))
    assert report(capsys)["commit"] is None  # no checkout
    git(tmp_path, "init")
    assert report(capsys)["commit"] is None  # nothing committed
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert report(capsys)["commit"] == commit
    (tmp_path / "new").touch()
    assert report(capsys)["commit"] == f"{commit} (with local changes)"
