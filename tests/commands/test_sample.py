"""`metvae sample` on a finished run: which pictures, and that they are repeatable."""

from pathlib import Path

import pytest

from tests.runs import files, metvae, train

PICTURES = {"latent.png", "prior_samples.png", "reconstructions.png", "chain.png"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        assert train("hydra.run.dir=run", "trainer.max_epochs=1") == 0
        return Path("run").absolute()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pictures_are_png_files_whose_names_are_printed(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: (run / name).read_bytes() for name in files(run) if (run / name).is_file()}
    capsys.readouterr()
    assert metvae("sample", f"run={run}", "count=16", "data=4", "device=cpu") == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in printed} == PICTURES
    for path in printed:
        assert path.is_relative_to(here / "outputs" / "sample")
        assert path.read_bytes().startswith(b"\x89PNG")
    assert {name: (run / name).read_bytes() for name in files(run) if (run / name).is_file()} == before


def test_pictures_depend_on_the_seed_alone(run: Path, here: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert metvae("sample", f"run={run}", f"seed={seed}", f"hydra.run.dir={folder}") == 0
    for name in ("prior_samples.png", "chain.png"):
        a, b, c = ((here / folder / name).read_bytes() for folder in "abc")
        assert a == b != c


def test_a_sweep_stays_below_outputs(run: Path, here: Path) -> None:
    assert metvae("sample", f"run={run}", "-m", "checkpoint=best,last", "count=1") == 0
    assert {path.name for path in here.iterdir()} == {"outputs"}
    assert {path.name for path in here.glob("outputs/sample/*/*/*.png")} == PICTURES


def test_data_that_are_no_images_have_a_latent_scatter_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = ("dataset=gaussian_toy", "likelihood=gaussian", "dataset.num_train=100", "trainer.max_epochs=1")
    assert train(*toy, "hydra.run.dir=run") == 0
    assert "test log-likelihood of the true process" in " ".join(capsys.readouterr().out.split())
    assert metvae("sample", "run=run", "hydra.run.dir=pictures") == 0
    assert {path.name for path in (here / "pictures").glob("*.png")} == {"latent.png"}
