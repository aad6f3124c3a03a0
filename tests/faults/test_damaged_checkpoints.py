"""Damaged, foreign and misplaced checkpoints: refused by name, or gone on from the other one with a warning."""

import io
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metvae_cli.training import checkpoint
from metvae_cli.training.checkpoint import load_checkpoint, save_checkpoint
from tests.endings import assert_same_end, status
from tests.runs import files, metvae, train
from tests.training.training import differences

WORDS = ("dataset.batch_size=64", "trainer.picture_every=0")
ESTIMATE = ("estimators=[importance]", "diagnostics=[]", "data=3", "importance.num_samples=3")
# Each is to end as if the file were not there; {} is the run, P a directory for what is made.
COMMANDS = {
    "resume": ("train", "resume={}", "trainer.max_epochs=3"),
    "sample": ("sample", "run={}", "pictures=[prior]", "hydra.run.dir=P"),
    "evaluate": ("evaluate", "run={}", *ESTIMATE, "hydra.run.dir=P"),
}
Damage = Callable[[bytes], bytes]


def cut(share: float) -> Damage:
    return lambda data: data[: int(share * len(data))]


def flip(seed: int) -> Damage:
    def damage(data: bytes) -> bytes:
        generator, changed = random.Random(seed), bytearray(data)
        changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        return bytes(changed)

    return damage


def swap(data: bytes) -> bytes:
    """Two tensors of one size in each other's place, byte by byte."""
    with zipfile.ZipFile(io.BytesIO(data[: -checkpoint._FOOTER_SIZE])) as archive:
        parts = [archive.read(name) for name in sorted(archive.namelist()) if "/data/" in name]
    a, b = next((a, b) for a in parts for b in parts if len(a) == len(b) > 64 and a != b and a.count(0) < len(a) / 2)
    first, second = sorted((data.index(a), data.index(b)))
    one, other = data[first : first + len(a)], data[second : second + len(a)]
    return data[:first] + other + data[first + len(a) : second] + one + data[second + len(a) :]


CUTS = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999]
FEW: dict[str, Damage] = {
    "half": cut(0.5),
    "empty": lambda data: b"",
    "flipped": flip(0),
    "swapped": swap,
    "text": lambda data: b"epoch 3\n" * 1000,
}
ALL: dict[str, Damage] = FEW | {f"cut {share}": cut(share) for share in CUTS} | {f"bit {n}": flip(n) for n in range(50)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run` of two epochs, of which `first.pt` is the best checkpoint of the first, `three` to its end, and `other`."""
    here = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert train(*WORDS, "hydra.run.dir=three", "trainer.max_epochs=3") == 0
        assert train(*WORDS, "hydra.run.dir=run", "trainer.max_epochs=1") == 0
        shutil.copy("run/checkpoints/best.pt", "first.pt")
        assert metvae("train", "resume=run", "trainer.max_epochs=2") == 0
        assert train(*WORDS, "hydra.run.dir=other", "seed=1", "trainer.max_epochs=1") == 0
    return here


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained / "run", "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder) if (folder / name).is_file()}


def refusal(run: Path, command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command is refused, having written nothing."""
    before, around = contents(run), files(Path())
    capsys.readouterr()
    assert metvae(*(word.format(run) for word in COMMANDS[command])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (contents(run), files(Path())) == (before, around)
    return line


def damage_both(run: Path, damage: Damage) -> None:
    for name in ("last.pt", "best.pt"):
        path = run / "checkpoints" / name
        path.write_bytes(damage(path.read_bytes()))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", FEW)
def test_where_both_checkpoints_are_damaged_each_command_names_the_file(
    run: Path, kind: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_both(run, FEW[kind])
    line = refusal(run, command, capsys)
    assert "best.pt: " in line
    assert "damaged (SHA-256" in line or "truncated, or not a metvae checkpoint" in line


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_damage_of_sixty_two_is_silent(run: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {name: (run / "checkpoints" / name).read_bytes() for name in ("last.pt", "best.pt")}
    assert len(ALL) == 62
    for damage in ALL.values():
        for name, data in whole.items():
            (run / "checkpoints" / name).write_bytes(damage(data))
        assert "best.pt: " in refusal(run, command, capsys)


def test_without_the_hash_most_flipped_bits_would_be_other_weights(run: Path) -> None:
    """The judge of the tests above: what torch itself makes of the same files."""
    path = run / "checkpoints" / "last.pt"
    data, whole, wrong = path.read_bytes(), load_checkpoint(path), 0
    for seed in range(50):
        try:
            found = torch.load(io.BytesIO(flip(seed)(data)), weights_only=True)
            wrong += bool(differences(found, whole))
        except Exception:
            continue
    assert wrong > 25


@pytest.mark.parametrize("kind", ["half", "flipped", "missing"])
def test_a_damaged_last_checkpoint_is_made_up_for_by_the_best(run: Path, trained: Path, kind: str) -> None:
    last = run / "checkpoints" / "last.pt"
    shutil.copy(trained / "first.pt", run / "checkpoints" / "best.pt")  # there is something to make up for
    if kind == "missing":
        last.unlink()
    else:
        last.write_bytes(FEW[kind](last.read_bytes()))
    assert metvae("train", "resume=run", "trainer.max_epochs=3") == 0
    (warning,) = (line for line in (run / "train.log").read_text().splitlines() if " WARNING " in line)
    assert "last.pt: " in warning
    assert "goes on from best.pt" in warning
    assert_same_end(run, trained / "three")
    ours, theirs = (load_checkpoint(folder / "checkpoints" / "last.pt")["state"] for folder in (run, trained / "three"))
    assert {**ours, "run": "", "seconds": 0, "log_position": 0} == {
        **theirs,
        "run": "",
        "seconds": 0,
        "log_position": 0,
    }


def test_a_damaged_best_checkpoint_is_made_anew(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = run / "checkpoints" / "best.pt"
    best.write_bytes(FEW["flipped"](best.read_bytes()))
    assert "best.pt: damaged" in refusal(run, "sample", capsys)
    assert metvae(*(word.format(run) for word in COMMANDS["sample"]), "checkpoint=last") == 0
    assert metvae("train", "resume=run") == 0  # with nothing left to train
    assert "best.pt: damaged" in (run / "train.log").read_text()
    assert status(run) == "finished"
    last = load_checkpoint(run / "checkpoints" / "last.pt")
    assert differences(load_checkpoint(best)["model"], last["model"]) == []
    assert last["state"]["best_epoch"] == 2


def plain_save(path: Path) -> None:
    torch.save({"model": torch.zeros(3)}, path)


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("weights.txt", "1 2 3")


def newer(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        content = load_checkpoint(path)
        patch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
        save_checkpoint(path, {**content, "format": checkpoint.FORMAT})


def fewer_keys(path: Path) -> None:
    content = load_checkpoint(path)
    save_checkpoint(path, {"model": content["model"], "state": {}})


def swapped_with_the_right_hash(path: Path) -> None:
    content = load_checkpoint(path)
    names = list(content["model"])
    shapes = [content["model"][name].shape for name in names]
    other = next(k for k, shape in enumerate(shapes) if shape != shapes[0])
    model = content["model"]
    model[names[0]], model[names[other]] = model[names[other]], model[names[0]]
    save_checkpoint(path, content)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (plain_save, "not a metvae checkpoint"),
        (archive, "not a metvae checkpoint"),
        (newer, "written by another version of metvae"),
        (fewer_keys, "does not fit"),
        (swapped_with_the_right_hash, "does not fit"),
    ],
)
def test_files_of_other_makes_are_refused(
    run: Path, make: Callable[[Path], None], expected: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("last.pt", "best.pt"):
        make(run / "checkpoints" / name)
    assert expected in refusal(run, command, capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_checkpoint_of_another_run_is_refused_though_it_fits(
    run: Path, trained: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not gone on without: it is somebody's only copy, and the next checkpoint would replace it."""
    name = "last.pt" if command == "resume" else "best.pt"
    shutil.copy(trained / "other" / "checkpoints" / name, run / "checkpoints" / name)
    assert f"{name}: is of another run" in refusal(run, command, capsys)


def test_a_best_checkpoint_of_another_run_is_refused_before_training(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(trained / "other" / "checkpoints" / "best.pt", run / "checkpoints" / "best.pt")
    assert "best.pt: is of another run" in refusal(run, "resume", capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_of_another_configuration_is_refused(
    run: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = run / ".hydra" / "config.yaml"
    stored.write_text(stored.read_text().replace("latent_dim: 2", "latent_dim: 3"))
    assert "does not fit" in refusal(run, command, capsys)
    assert status(run) == "finished"


def test_a_run_of_an_earlier_version_has_no_id_and_goes_on(run: Path) -> None:
    (run / "manifest.json").unlink()
    for name in ("last.pt", "best.pt"):
        content = load_checkpoint(run / "checkpoints" / name)
        del content["state"]["run"]
        save_checkpoint(run / "checkpoints" / name, content)
    for epochs in (3, 4):
        assert metvae("train", "resume=run", f"trainer.max_epochs={epochs}") == 0
    assert load_checkpoint(run / "checkpoints" / "best.pt")["state"]["run"] == ""
