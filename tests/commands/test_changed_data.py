"""A run and its data: found again where the run was started, moved, and refused or said where they have changed."""

from pathlib import Path

import numpy as np
import pytest

from tests.runs import metvae

SHORT = (
    "likelihood=gaussian",
    "encoder.hidden=[8]",
    "decoder.hidden=[8]",
    "dataset.num_valid=10",
    "dataset.num_test=10",
    "trainer.max_epochs=1",
    "trainer.test_samples=3",
    "trainer.device=cpu",
    "hydra.run.dir=run",
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on x.npy, named by a relative path, in the working directory."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    assert metvae("train", "dataset=array", "dataset.path=x.npy", *SHORT) == 0
    return tmp_path / "run"


def test_relative_paths_are_those_of_where_the_run_was_started(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert metvae("sample", f"run={run}", "hydra.run.dir=pictures") == 0
    assert metvae("train", f"resume={run}", "trainer.max_epochs=2") == 0


def test_moved_data_are_named_on_a_resume(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.npy").rename("y.npy")
    assert metvae("train", "resume=run", "trainer.max_epochs=2") == 2
    assert metvae("train", "resume=run", "trainer.max_epochs=2", "dataset.path=y.npy") == 0
    assert metvae("train", "resume=run", "trainer.max_epochs=3", "dataset.root=here") == 2
    assert "dataset.root: unknown key" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["order", "values", "shape"])
def test_changed_data_are_no_resume_and_are_said_by_sample(
    run: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.load("x.npy")
    np.save("x.npy", {"order": values[::-1].copy(), "values": values + 1, "shape": values[:, :3]}[change])
    status = (run / "status.json").read_bytes()
    capsys.readouterr()
    assert metvae("train", "resume=run", "trainer.max_epochs=2") == 2
    said = capsys.readouterr().err
    assert "the data are not those" in said
    assert len([line for line in said.splitlines() if "error" in line]) == 1
    assert (run / "status.json").read_bytes() == status
    if change == "shape":
        assert metvae("sample", "run=run", "hydra.run.dir=pictures") == 2
        assert "data of shape (4,)" in capsys.readouterr().err
    else:
        assert metvae("sample", "run=run", "hydra.run.dir=pictures") == 0
        captured = capsys.readouterr()
        assert "the data are not those" in captured.err + captured.out


@pytest.mark.parametrize("name", ["it's.npy", "a b(1).npy", "sp ace,é=x.npy"])
def test_a_path_that_wants_quotes_is_told_how(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert metvae("train", "dataset=array", f"dataset.path={name}", "likelihood=gaussian") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    escaped = name.replace("'", "\\'")
    assert f"dataset.path='{escaped}'" in said


def test_data_that_no_step_can_be_made_on_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).poisson(1e6, (60, 4)))
    assert metvae("train", "dataset=array", "dataset.path=x.npy", "likelihood=poisson", *SHORT[1:]) == 1
    assert "no step was made" in capsys.readouterr().err
