"""What a start imports, by name and not by time: help without torch, a first iteration without what only ends need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
# Whatever answers without a model being built.
FOR_RUNS = {"torch", "numpy", "scipy", "sklearn", "rich", "tensorboard", "matplotlib", "PIL", "zuko"}
# Data sets that are downloaded, several processes, searches, sweeps, figures and the diagnostics of evaluation.
FOR_SOME_RUNS = {
    "torchvision",
    "lightning_fabric",
    "lightning",
    "optuna",
    "joblib",
    "submitit",
    "matplotlib",
    "pandas",
    "scipy",
    "sklearn",
    "arviz_stats",
}
# Python itself is asked what it has imported when the first iteration begins, and goes no further.
UNTIL_THE_FIRST_ITERATION = """
import importlib.abc, importlib.machinery, sys

class Instead(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "metvae_cli.training.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.Trainer.gradients = first_iteration
        spec.loader.exec_module = exec_module
        return spec

def first_iteration(*arguments):
    print("imported:", *sys.modules)
    raise KeyboardInterrupt

sys.meta_path.insert(0, Instead())
from metvae_cli.cli import main
sys.exit(main())
"""


def imported(*words: str) -> tuple[int, set[str]]:
    """Status of a command in a process of its own, and the packages that it imported."""
    result = python("-X", "importtime", "-m", "metvae_cli.cli", *words)
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return result.returncode, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def python(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "infer", "compare", "configs", "info"])
def test_help_of_a_command_imports_nothing_that_runs_need(command: str) -> None:
    status, packages = imported(command, "--help")
    assert status == 0
    assert packages & FOR_RUNS == set()
    assert "metvae_cli" in packages


@pytest.mark.parametrize("words", [("train", "smapler=hmc"), ("sample", "run"), ("evaluate", "--rnu")])
def test_a_wrong_word_is_answered_without_what_runs_need(words: tuple[str, ...]) -> None:
    status, packages = imported(*words)
    assert status == 2
    assert packages & FOR_RUNS == set()


@pytest.mark.parametrize(
    ("words", "beside"),
    [
        ((), set()),
        pytest.param(("experiment=digits_lmcvae", "sampler=hmc"), set(), marks=pytest.mark.slow),
        # What a module of the user's imports is seen, and so would be what metvae imports.
        (("plugins=[statistics_of_mine]",), {"scipy"}),
    ],
    ids=["digits", "experiment", "plugin"],
)
def test_a_first_iteration_waits_for_nothing_that_it_does_not_use(
    words: tuple[str, ...], beside: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "statistics_of_mine.py").write_text("import scipy\n")
    monkeypatch.setenv("PYTHONPATH", f"{CHECKOUT}{os.pathsep}{tmp_path}")
    run = [sys.executable, "-c", UNTIL_THE_FIRST_ITERATION, "train", f"hydra.run.dir={tmp_path / 'run'}", *words]
    result = subprocess.run(run, capture_output=True, text=True)
    assert result.returncode == 130, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("imported:")]
    packages = {name.partition(".")[0] for name in line.split()[1:]}
    assert {"torch", "tensorboard", "hydra"} <= packages
    assert packages & FOR_SOME_RUNS == beside
