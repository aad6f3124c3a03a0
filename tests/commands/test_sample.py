"""`metvae sample` on a finished run: which pictures and arrays, that they are repeatable, and what is refused."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metvae_cli.build import LoadedRun, load_run
from metvae_cli.commands import sample_pictures
from metvae_cli.commands.sample_request import PictureName, Request
from metvae_cli.data.digits import Digits
from metvae_cli.paths import config_dir
from tests.runs import files, metvae, train

NAMES = set(get_args(PictureName))
PICTURES = {f"{name}.png" for name in NAMES}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        assert train("hydra.run.dir=run", "trainer.max_epochs=1") == 0
        return Path("run").absolute()


@pytest.fixture(scope="module")
def loaded(run: Path) -> LoadedRun:
    """The model of that run."""
    return load_run(run, "best", "cpu", [])


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


def arrays(path: Path) -> dict[str, np.ndarray]:
    """What an npz file holds; the file is closed again."""
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def pictures(folder: Path) -> dict[str, bytes]:
    """The PNG files in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_pictures_depend_on_the_seed_and_on_no_other_picture(run: Path, here: Path) -> None:
    asked = {"a": "seed=0", "b": "seed=0", "c": "seed=1", "d": "pictures=[inpainting,prior]"}
    for folder, words in asked.items():
        assert metvae("sample", f"run={run}", words, f"hydra.run.dir={folder}") == 0
    a, b, c, d = (pictures(here / folder) for folder in asked)
    assert a == b
    assert a.keys() == c.keys() == PICTURES
    # Encoder means draw nothing, and a line between them only its end.
    assert {name for name in PICTURES if a[name] == c[name]} == {"latent.png", "traversal.png"}
    assert d == {name: a[name] for name in ("inpainting.png", "prior.png")}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_global_random_state_is_left_alone_and_does_not_matter(loaded: LoadedRun, name: PictureName) -> None:
    request = Request("run", count=4, data=2, sweeps=2, steps=3)
    drawn = []
    for state in (11, 12):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        picture = sample_pictures.draw(name, loaded, request)
        assert picture.image is not None
        drawn.append(picture.image())
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)


def test_pictures_are_in_tensorboard(run: Path, here: Path) -> None:
    assert metvae("sample", f"run={run}", "hydra.run.dir=pictures") == 0
    events = EventAccumulator(str(here / "pictures"))
    events.Reload()
    assert set(events.Tags()["images"]) == {f"images/{name}" for name in NAMES}


def test_arrays_are_plain(run: Path, here: Path) -> None:
    words = ("arrays=true", "count=5", "data=3", "steps=4", "neighbours=2", "sweeps=6", "frames=2", "mask=left")
    assert metvae("sample", f"run={run}", *words, "hydra.run.dir=a") == 0
    found = {name: arrays(here / "a" / f"{name}.npz") for name in NAMES}
    shapes = {name: {key: value.shape for key, value in arrays.items()} for name, arrays in found.items()}
    image = (1, 8, 8)
    assert shapes["prior"] == {"positions": (5, 2), "images": (5, *image)}
    assert shapes["reconstructions"]["positions"] == (2, 3, 2)
    assert shapes["chain"]["images"] == (3, 3, *image)
    assert shapes["interpolation"]["images"] == (4, 3, *image)
    assert shapes["interpolation"]["index"] == (3, 2)
    assert shapes["traversal"]["positions"] == (4, 2, 2)
    assert shapes["neighbours"]["indices"] == shapes["neighbours"]["distances"] == (3, 2)
    assert shapes["inpainting"]["draws"] == shapes["inpainting"]["means_encoder"] == (2, 3, *image)
    assert shapes["latent"]["plane"] == (len(found["latent"]["labels"]), 2)
    painted, walk = found["inpainting"], found["interpolation"]
    observed = ~painted["masked"]
    assert (painted["draws"][..., observed] == painted["data"][..., observed]).all()
    assert (painted["masked"][:, :4].all(), painted["masked"][:, 4:].any()) == (True, False)
    test = Digits().load().test
    assert test.labels is not None
    assert (test.labels[walk["index"][:, 0]] != test.labels[walk["index"][:, 1]]).all()
    near = found["neighbours"]
    distances = np.sqrt(((near["images"] - near["neighbours"]) ** 2).sum((2, 3, 4))).T
    assert np.allclose(distances, near["distances"], atol=1e-5)


def test_the_search_for_neighbours_may_be_cut_and_says_so(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("pictures=[neighbours]", "train_data=3", "arrays=true", "hydra.run.dir=a")
    assert metvae("sample", f"run={run}", *words) == 0
    assert "neighbours: among 3 of " in "".join(capsys.readouterr())
    assert len(np.unique(arrays(here / "a" / "neighbours.npz")["indices"])) == 3


def test_what_is_made_before_an_interruption_stays(
    run: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_pictures, "_traversal", interrupted)
    capsys.readouterr()
    assert metvae("sample", f"run={run}", "hydra.run.dir=a", "pictures=[prior,traversal,chain]") == 130
    assert set(pictures(here / "a")) == {"prior.png"}
    assert "Traceback" not in capsys.readouterr().err


def test_every_key_is_shown_with_its_default() -> None:
    shown = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(config_dir() / "sample.yaml"), resolve=False))
    parameters = inspect.signature(Request).parameters
    assert shown.keys() - {"defaults", "hydra"} == parameters.keys()
    for name in parameters.keys() - {"run", "plugins"}:
        assert shown[name] == parameters[name].default


def test_a_sweep_stays_below_outputs(run: Path, here: Path) -> None:
    assert metvae("sample", f"run={run}", "-m", "checkpoint=best,last", "count=1") == 0
    assert {path.name for path in here.iterdir()} == {"outputs"}
    assert {path.name for path in here.glob("outputs/sample/*/*/*.png")} == PICTURES


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on data that are no images, `toy`, and one without a chain and with one latent, `plain`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        toy = ("dataset=gaussian_toy", "likelihood=gaussian", "dataset.num_train=100", "trainer.max_epochs=1")
        assert train(*toy, "hydra.run.dir=toy") == 0
        plain = ("sampler=none", "objective=elbo", "sampler.num_steps=0", "latent_dim=1", "trainer.max_epochs=1")
        assert train(*plain, "hydra.run.dir=plain") == 0
        return Path.cwd()


def test_data_that_are_no_images_have_a_latent_scatter_alone(
    others: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metvae("sample", f"run={others}/toy", "hydra.run.dir=pictures") == 0
    assert set(pictures(here / "pictures")) == {"latent.png"}
    assert " ".join("".join(capsys.readouterr()).split()).count("note: left out: ") == 1


def test_data_that_are_no_images_have_arrays(others: Path, here: Path) -> None:
    assert metvae("sample", f"run={others}/toy", "arrays=true", "data=3", "count=5", "hydra.run.dir=pictures") == 0
    assert set(pictures(here / "pictures")) == {"latent.png"}
    written = {path.stem for path in (here / "pictures").glob("*.npz")}
    assert written == NAMES - {"inpainting"}
    prior = arrays(here / "pictures" / "prior.npz")
    assert prior["images"].shape[0] == prior["positions"].shape[0] == 5


def test_a_model_without_a_chain_and_with_one_latent(
    others: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metvae("sample", f"run={others}/plain", "arrays=true", "hydra.run.dir=pictures") == 0
    assert set(pictures(here / "pictures")) == PICTURES - {"chain.png"}
    painted = arrays(here / "pictures" / "inpainting.npz")
    assert not [name for name in painted if name.endswith("_encoder")]
    assert "left out: chain (the run has no chain" in " ".join("".join(capsys.readouterr()).split())


@pytest.mark.parametrize(
    ("run_name", "words", "expected"),
    [
        ("plain", "pictures=[chain]", ("pictures=[chain]", "sampler.num_steps=0", "choose reconstructions")),
        ("toy", "pictures=[latent,prior]", ("pictures=[prior]", "no images", "arrays=true")),
        ("toy", "pictures=[inpainting] arrays=true", ("pictures=[inpainting]", "mask", "latent")),
        ("plain", "pictures=[prior,chian]", ("pictures=", "chian", "did you mean chain")),
        ("plain", "pictures=prior", ("pictures=prior", "a list, like [prior,reconstructions]")),
        ("plain", "pictures=[3]", ("pictures=[3]", "expected one of prior, reconstructions")),
        ("plain", "pictures=[]", ("pictures=[]", "pictures=null")),
        ("plain", "mask=botom", ("mask=botom", "did you mean bottom")),
        ("plain", "mask_share=1", ("mask_share=1", "between 0 and 1")),
        ("plain", "mask_share=nan", ("mask_share=nan", "between 0 and 1")),
        ("plain", "steps=1", ("steps=1", "at least 2")),
        ("plain", "neighbours=0", ("neighbours=0", "at least 1")),
        ("plain", "train_data=0", ("train_data=0", "at least 1")),
        ("plain", "train_data=all", ("train_data=all", "an integer or null")),
        ("plain", "sweeps=0", ("sweeps=0", "at least 1")),
        ("plain", "frames=0", ("frames=0", "at least 1")),
        ("plain", "arrays=1", ("arrays=1", "true or false")),
        ("plain", "picture=[prior]", ("picture", "did you mean pictures")),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    run_name: str, words: str, expected: Sequence[str], others: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert metvae("sample", f"run={others}/{run_name}", *words.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    for part in expected:
        assert part in lines[0]
    assert files(here) == set()
