"""What TensorBoard is given, read back from the files: by whole runs, runs in parts, sweeps and other commands."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from metvae_cli.errors import Interrupted
from metvae_cli.training.interruption import Interruption
from tests.endings import wait_for_epoch
from tests.runs import TINY, infer, metvae, start, train
from tests.tracking.boards import (
    hparam_columns,
    hparams_of,
    numbers,
    projector_of,
    raw_events,
    runs_below,
    steps_by_tag,
    text_of,
)

OFTEN = ("trainer.log_every=10", "trainer.picture_every=1")
DRAWN = ("sampler=hmc", "objective=metvae", *OFTEN)  # decisions, for the scalars of the score function
EPOCHS = [21, 42, 63]
LOGGED = [10, 20, 30, 40, 50, 60]
MEASURED = ["bound", "reconstruction", "kl", "log_weight_variance", "effective_samples"]
STEPS = [f"{kind}_{k}" for kind in ("accept", "moved", "divergent") for k in (1, 2)]
PICTURES = ("images/prior_samples", "images/reconstructions", "images/chain", "latent/encoder_means")
WHOLE = ("config/text_summary", "command/text_summary", "custom_scalars__config__")
SESSION = ("experiment", "session_start_info", "session_end_info")
FINAL = ["val/bound", "test/nll", "test/nll_se", "train/bound", "test/bound", "seconds", "decoder_evaluations"]
EXPECTED: dict[str, list[int]] = {
    **{f"train/{name}": LOGGED for name in (*MEASURED, *STEPS)},
    **{f"train/gradient_norm{part}": LOGGED for part in ("", "_score_function", "_pathwise")},
    **{f"train/{name}": LOGGED for name in ("lr", "kl_weight", "bad_steps")},
    **{f"speed/{name}_per_second": LOGGED for name in ("images", "decoder_evaluations")},
    "memory/peak_mb": LOGGED,
    **{f"step_size/{k}": LOGGED for k in (1, 2)},
    **{f"val/{name}": EPOCHS for name in (*MEASURED, *STEPS)},
    "val/log_weights": EPOCHS,
    **dict.fromkeys(PICTURES, EPOCHS),
    **{f"final/{name}": EPOCHS[-1:] for name in (*PICTURES, *FINAL)},
    **{name: [0] for name in (*WHOLE, *(f"_hparams_/{part}" for part in SESSION))},
}
SWEPT = ("experiment=digits_vae,digits_metvae_hmc,digits_lmcvae", "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `whole`, a run of three epochs."""
    folder = tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train("hydra.run.dir=whole", "trainer.max_epochs=3", *DRAWN) == 0
        yield folder


def assert_same_board(folder: Path, whole: Path) -> None:
    """Tags, steps and numbers of the run that was not interrupted, and nothing beside the run."""
    assert steps_by_tag(folder) == steps_by_tag(whole)
    assert numbers(folder) == numbers(whole)
    assert runs_below(folder) == {"."}
    assert len(projector_of(folder).embeddings) == 1


def test_a_run_has_these_tags_at_these_steps(here: Path) -> None:
    assert steps_by_tag(here / "whole") == EXPECTED
    assert runs_below(here) == {"whole"}


def test_events_are_few(here: Path) -> None:
    """Each costs a record, a checksum and a place in the queue."""
    events = [event for event in raw_events(here / "whole") if event.summary.value]
    # Three epochs: six times training's scalars; validation's, a histogram and four pictures each; what is said once
    # is the four last pictures, three texts, three parts of the row in the table, and the results.
    assert len(events) == 6 + 3 * (1 + 1 + 4) + 4 + 3 + 3 + 1


def test_the_configuration_and_the_command_line_are_text(here: Path) -> None:
    manifest = json.loads((here / "whole" / "manifest.json").read_text())
    config = "\n".join(line[4:] for line in text_of(here / "whole", "config").splitlines())
    assert OmegaConf.to_container(OmegaConf.create(config)) == manifest["config"]
    (line,) = text_of(here / "whole", "command").splitlines()
    assert line.startswith("    ")
    assert line.endswith("hydra.run.dir=whole trainer.max_epochs=3 " + " ".join(DRAWN))


def test_the_row_of_a_run(here: Path) -> None:
    row = hparams_of(here / "whole")
    assert row == {
        **{"dataset": "digits", "prior": "standard_normal", "encoder": "mlp", "decoder": "mlp"},
        **{"likelihood": "bernoulli", "sampler": "hmc", "objective": "metvae", "optimizer": "adam"},
        **{"experiment": "none", "seed": 0, "latent_dim": 2, "sampler.num_steps": 2, "objective.num_samples": 2},
        **{"sampler.acceptance": "barker", "sampler.schedule": "constant", "optimizer.lr": row["optimizer.lr"]},
    }
    keys, results = hparam_columns(here / "whole")
    assert sorted(keys) == sorted(row)
    assert results == [f"final/{name}" for name in FINAL]


def test_the_projector_has_a_label_and_an_image_for_each_point(here: Path) -> None:
    (embedding,) = projector_of(here / "whole").embeddings
    positions = (here / "whole" / embedding.tensor_path).read_text().splitlines()
    labels = (here / "whole" / embedding.metadata_path).read_text().splitlines()
    assert len(positions) == len(labels) - 1 == 200
    assert all(len(line.split("\t")) == 2 and all(map(math.isfinite, map(float, line.split()))) for line in positions)
    assert labels[0] == "class\tdatum"
    width, height = embedding.sprite.single_image_dim
    with Image.open(here / "whole" / embedding.sprite.image_path) as sprite:
        assert (sprite.width // width) * (sprite.height // height) >= len(positions)


@pytest.mark.parametrize("checks", [5, 25, 44])
def test_an_interrupted_run_that_goes_on_writes_what_the_whole_one_writes(
    here: Path, monkeypatch: pytest.MonkeyPatch, checks: int
) -> None:
    """Checks are made after each iteration, and in validations, which then begin anew."""
    left = checks
    real = Interruption.check

    def check(self: Interruption) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interrupted(15)
        real(self)

    monkeypatch.setattr(Interruption, "check", check)
    folder = f"cut_{checks}"
    assert train(f"hydra.run.dir={folder}", "trainer.max_epochs=3", *DRAWN) == 143
    tags = set(steps_by_tag(here / folder))
    assert "_hparams_/session_start_info" in tags  # a row in the table
    assert not {"_hparams_/session_end_info", "final/val/bound"} & tags
    assert metvae("train", f"resume={folder}") == 0
    assert_same_board(here / folder, here / "whole")
    assert len(text_of(here / folder, "command").splitlines()) == 2


@pytest.mark.slow
def test_a_killed_run_that_goes_on_writes_what_the_whole_one_writes(here: Path) -> None:
    words = (*TINY, "trainer.max_epochs=3", *DRAWN, "hydra.run.dir=killed", "trainer.test_samples=300")
    process = start(here, "train", *words)
    wait_for_epoch(here / "killed", 1)
    process.kill()
    process.communicate()
    assert metvae("train", "resume=killed", "trainer.test_samples=5") == 0
    assert_same_board(here / "killed", here / "whole")


def test_a_finished_run_may_go_on_and_go_on(here: Path) -> None:
    assert train("hydra.run.dir=longer", "trainer.max_epochs=1", *DRAWN) == 0
    assert metvae("train", "resume=longer") == 0
    assert steps_by_tag(here / "longer")["final/val/bound"] == [21]
    assert metvae("train", "resume=longer", "trainer.max_epochs=3") == 0
    assert_same_board(here / "longer", here / "whole")
    assert len(text_of(here / "longer", "command").splitlines()) == 3
    assert "max_epochs: 3" in text_of(here / "longer", "config")


def test_a_sweep_of_different_methods_makes_one_table(here: Path) -> None:
    words = ("encoder.hidden=[16]", "decoder.hidden=[16]", "latent_dim=2", "trainer.test_samples=5", *SWEPT)
    assert metvae("train", "-m", *words, "dataset.num_valid=100,200", "hydra.sweep.dir=sweep") == 0
    jobs = sorted(path for path in (here / "sweep").iterdir() if path.is_dir())
    assert len(jobs) == 6
    assert runs_below(here / "sweep") == {job.name for job in jobs}
    rows = [hparams_of(job) for job in jobs]
    columns = [hparam_columns(job) for job in jobs]
    assert all(column == columns[0] for column in columns)
    assert all(sorted(row) == sorted(columns[0][0]) for row in rows)
    assert {row["dataset.num_valid"] for row in rows} == {100, 200}
    assert [row["sampler"] for row in rows[::2]] == ["none", "hmc_partial", "langevin"]
    assert [row["sampler.num_steps"] for row in rows[::2]] == [0, 2, 5]
    kinds = [{name: type(value) for name, value in row.items()} for row in rows]
    assert all(kind == kinds[0] for kind in kinds)
    assert len({value for job in jobs for value in layouts(job)}) == 1  # else TensorBoard shows each of them
    for job in jobs:
        steps = steps_by_tag(job)
        assert set(columns[0][1]) <= set(steps)
        assert all(found == sorted(set(found)) for found in steps.values())
    assert "train/accept_1" not in steps_by_tag(jobs[0])


def layouts(folder: Path) -> list[bytes]:
    """The custom-scalars layouts of a run."""
    values = [value for event in raw_events(folder) for value in event.summary.value]
    return [value.tensor.string_val[0] for value in values if value.tag == "custom_scalars__config__"]


def test_a_run_that_failed_has_a_row(here: Path) -> None:
    words = ("optimizer=sgd", "optimizer.lr=1e30", "trainer.clip_norm=null", "trainer.max_bad_steps=2")
    assert train(*words, "hydra.run.dir=failed") == 1
    assert hparams_of(here / "failed")["optimizer"] == "sgd"


@pytest.mark.slow
def test_inference_says_the_same_things(here: Path) -> None:
    words = ("target=two_modes", "sampler=hmc", *OFTEN)
    assert infer(*words, "hydra.run.dir=inferred") == 0
    assert infer(*words, "hydra.run.dir=parts", "trainer.max_epochs=1") == 0
    assert metvae("infer", "resume=parts", "trainer.max_epochs=2") == 0
    steps = steps_by_tag(here / "inferred")
    assert all(found == sorted(set(found)) for found in steps.values())
    assert_no_difference(steps_by_tag(here / "parts"), steps)
    assert layouts(here / "inferred") == layouts(here / "whole")
    row = hparams_of(here / "inferred")
    assert (row["target"], row["initial"], row["sampler"], row["latent_dim"]) == ("two_modes", "gaussian", "hmc", 0)
    assert {"final/bound", "final/log_normalizer_error"} <= set(hparam_columns(here / "inferred")[1]) & set(steps)


def assert_no_difference(found: dict[str, list[int]], expected: dict[str, list[int]]) -> None:
    assert {tag: (steps, expected.get(tag)) for tag, steps in found.items() if steps != expected.get(tag)} == {}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sample", ("pictures=[prior,latent]",)),
        ("evaluate", ("estimators=[importance]", "diagnostics=[]", "data=9", "importance.num_samples=5")),
    ],
)
def test_what_measures_a_run_leaves_it_alone_and_writes_once(
    here: Path, capsys: pytest.CaptureFixture[str], command: str, words: tuple[str, ...]
) -> None:
    before = {path: path.read_bytes() for path in sorted((here / "whole").rglob("*")) if path.is_file()}
    for _ in range(2):  # the second time in the place of the first
        assert metvae(command, "run=whole", *words, f"hydra.run.dir={command}") == 0
    steps = steps_by_tag(here / command)
    assert all(len(found) == 1 for found in steps.values())
    assert runs_below(here / command) == {"."}
    for folder in ("whole", "${run}"):
        assert metvae(command, "run=whole", *words, f"hydra.run.dir='{folder}'") == 2
        assert "holds a run of another command" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in sorted((here / "whole").rglob("*")) if path.is_file()} == before
