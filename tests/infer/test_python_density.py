"""A density from the user's own file: when it is run, and what is said of one that is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metvae_cli.targets.python import PythonDensity
from tests.infer.shipped import write_density
from tests.runs import BRIEF, files, infer, metvae

GOOD = "def log_prob(z):\n    return -0.5 * z.square().sum(-1)"
WALK = ("sampler=random_walk", "objective=none")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_function_becomes_a_target(here: Path) -> None:
    path = write_density(here, GOOD)
    target = PythonDensity(f"{path}:log_prob", dim=3, log_normalizer=1.5)
    assert target.log_prob(2 * torch.ones(4, 3)).tolist() == [-6.0] * 4
    assert target.log_normalizer == 1.5
    assert target.sample(3) is None
    assert target.spread_out(7).shape == (7, 3)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def other(z):\n    return z", "has no function log_prob; it has other"),
        ("log_prob = 3", "log_prob is no function"),
        ("def log_prob(z):\n    return -z.square()", r"shape \(20, 3\), not \(20, 3, 2\)"),
        ("def log_prob(z):\n    return 1.0", "gives a float"),
        ("def log_prob(z):\n    return z.sum(-1) * float('nan')", "is NaN"),
        ("def log_prob(z):\n    return z.sum(-1) * 0 - torch.inf", "is NaN, infinite or everywhere zero"),
        ("def log_prob(z):\n    return -z.detach().square().sum(-1)", "has no gradient"),
        ("def log_prob(z):\n    return z @ torch.eye(5)", "fails for z of shape"),
        ("raise KeyError('mine')", "cannot be run"),
    ],
)
def test_what_is_no_log_density_is_refused(body: str, said: str, here: Path) -> None:
    write_density(here, body)
    with pytest.raises(ValueError, match=said):
        PythonDensity("my_density.py:log_prob")


@pytest.mark.parametrize("path", ["my_density.py", ":log_prob", "my_density.py:", "my_density.py:a b", "none.py:f"])
def test_a_name_that_names_no_function_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"path={path}: "):
        PythonDensity(path)


def test_half_of_the_plane_may_have_no_mass(here: Path) -> None:
    write_density(here, "def log_prob(z):\n    return torch.where(z[..., 0] > 0, -z.square().sum(-1), -torch.inf)")
    assert PythonDensity("my_density.py:log_prob").log_prob(-torch.ones(2)).item() == -torch.inf


def test_pictures_of_a_density_that_knows_one_precision_and_has_no_contours(here: Path) -> None:
    """Uniform on a square, with a matrix of single precision in it."""
    body = "def log_prob(z):\n    w = (z @ torch.eye(2)).abs().amax(-1)\n    return "
    write_density(here, f"{body}torch.where(w < 1, 0 * w, -torch.inf)")
    assert infer("target=python", "target.path=my_density.py:log_prob", *WALK, "hydra.run.dir=run") == 0
    chains = torch.from_numpy(np.load(here / "run" / "chains.npy"))
    assert chains.abs().max() < 1
    assert len(chains.flatten(0, 1).unique(dim=0)) > 2


def test_a_run_of_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_density(here, GOOD)
    words = ("target=python", "target.path=my_density.py:log_prob", "hydra.run.dir=run")
    assert infer(*words, "target.log_normalizer=1.8379") == 0
    assert "error of the estimate" in (said := capsys.readouterr().out)
    assert "metvae infer resume=run trainer.max_epochs=N target.path=my_density.py:log_prob" in said
    capsys.readouterr()
    assert metvae("infer", "resume=run", "trainer.max_epochs=3") == 2
    assert "target.path=my_density.py:log_prob: stands in a file" in capsys.readouterr().err
    assert metvae("infer", "resume=run", "trainer.max_epochs=3", "target.path=my_density.py:log_prob") == 0


def test_a_file_named_in_an_experiment_is_not_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_density(here, f"open('touched', 'w').close()\n\n\n{GOOD}")
    (here / "menu" / "experiment").mkdir(parents=True)
    hostile = "# @package _global_\n# hostile\ndefaults:\n  - override /target: python\n\ntarget:\n"
    (here / "menu" / "experiment" / "hostile.yaml").write_text(f"{hostile}  path: my_density.py:log_prob\n")
    before = files(here)
    words = ("infer", "--config-dir=menu", "experiment=hostile", *BRIEF, *WALK)
    assert metvae(*words) == 2
    assert "Python code of yours is run only if named on the command line" in capsys.readouterr().err
    assert files(here) == before
    assert metvae(*words, "target.path=my_density.py:log_prob") == 0
    assert (here / "touched").is_file()


def test_another_file_than_the_typed_one_is_not_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An interpolation in a file may not lead elsewhere."""
    write_density(here, f"open('touched', 'w').close()\n\n\n{GOOD}", "theirs.py")
    (here / "menu" / "experiment").mkdir(parents=True)
    head = "# @package _global_\n# hostile\ndefaults:\n  - override /target: python\n\nplace: theirs.py:log_prob\n"
    (here / "menu" / "experiment" / "hostile.yaml").write_text(head)
    words = ("infer", "--config-dir=menu", "experiment=hostile", *BRIEF, *WALK)
    assert metvae(*words, "target.path=${place}") == 2
    assert "touched" not in files(here)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("target.path=none.py:log_prob", "target.path=none.py:log_prob: there is no file none.py"),
        ("", "target.path=null: name a file"),
        ("target.path=my_density.py:log_prob target.window=[1,0,0,1]", "target.window=[1, 0, 0, 1]: must be"),
        ("target.path=my_density.py:log_prob target.dim=0", "target.dim=0: must lie between"),
        ("target.path=my_density.py:prob", "my_density.py has no function prob; it has log_prob"),
    ],
)
def test_mistakes_are_one_line(words: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_density(here, GOOD)
    before = files(here)
    assert infer("target=python", *WALK, *words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert files(here) == before
