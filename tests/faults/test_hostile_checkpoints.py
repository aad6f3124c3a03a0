"""Checkpoints that somebody else made: the right hash, and inside code or nonsense.

Each is put into the directory of a real run and given to every command that reads it.
"""

import io
import itertools
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metvae_cli.training.checkpoint import load_checkpoint
from tests.faults.forged_checkpoints import Gadget, archived, saved, seal
from tests.runs import files, infer, metvae, train

COMMANDS = (
    ("train", "resume=run", "trainer.max_epochs=3"),
    ("sample", "run=run", "checkpoint=last", "pictures=[prior]"),
    ("evaluate", "run=run", "checkpoint=last", "estimators=[importance]"),
)
PLACES = ("model", "optimizer", "random")


def touch(marker: Path) -> Gadget:
    return Gadget(os.system, f"touch {marker}")


def with_entry(content: dict[str, Any], place: str, entry: Any) -> dict[str, Any]:
    """A whole checkpoint with one thing more in one of its parts."""
    return {**content, place: {**content[place], "more": entry}}


def pointing(entry: Gadget) -> bytes:
    """The class of a storage is itself a call, in the address that a pickle leaves to its reader."""
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol=2).dump(("storage", entry, "0", "cpu", 1))
    return buffer.getvalue().removesuffix(b".") + b"Q."


def legacy_tar(entry: Any) -> bytes:
    """The format of torch before 0.1.10."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(entry, protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def npz(entry: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, model=np.array([entry, None], dtype=object))
    return buffer.getvalue()


def gadgets(content: dict[str, Any], marker: Path) -> dict[str, bytes]:
    """Files under a right hash, each of which leaves the marker where it is read without care."""
    call = touch(marker)
    whole = saved(content)
    found = {f"system in {place}": saved(with_entry(content, place, call)) for place in PLACES}
    return found | {
        "open": saved(with_entry(content, "random", Gadget(open, str(marker), "w"))),
        "nested": saved(with_entry(content, "optimizer", {"a": [({"b": (1, [call])},)]})),
        "a key": saved({**content, "state": {**content["state"], call: 1}}),
        "persistent_id": archived(pointing(call), whole),
        "legacy tar": legacy_tar(call),
        "legacy": saved(with_entry(content, "model", call), _use_new_zipfile_serialization=False),
        "object array": saved(with_entry(content, "random", np.array([call, None], dtype=object))),
        "npz": npz(call),
        "bare pickle": pickle.dumps({**content, "model": call}),
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that has been trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        assert train("hydra.run.dir=run", "trainer.max_iterations=2") == 0
        return Path("run").absolute()


@pytest.fixture
def run(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(original, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder) if (folder / name).is_file()}


def refusals(
    run: Path, capsys: pytest.CaptureFixture[str], commands: Sequence[Sequence[str]] = COMMANDS
) -> Iterator[str]:
    """What each command says that refuses the run: one line, and nothing is written."""
    for words in commands:
        capsys.readouterr()
        before = contents(run.parent)
        status = metvae(*words)
        captured = capsys.readouterr()
        assert status == 2, captured.err
        assert captured.out == ""
        assert contents(run.parent) == before
        (line,) = captured.err.splitlines()
        assert line.startswith("metvae: error: ")
        yield line


def damage(run: Path, payload: bytes) -> None:
    for name in ("last.pt", "best.pt"):
        (run / "checkpoints" / name).write_bytes(seal(payload))


def whole(run: Path) -> dict[str, Any]:
    return load_checkpoint(run / "checkpoints" / "last.pt")


@pytest.mark.parametrize("all_commands", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_command_runs_what_a_checkpoint_says(
    all_commands: bool, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker, turns = run.parent / "marker", itertools.cycle(COMMANDS)
    for kind, payload in gadgets(whole(run), marker).items():
        damage(run, payload)
        for line in refusals(run, capsys, COMMANDS if all_commands else [next(turns)]):
            assert "last.pt: refused, " in line, kind
        assert not marker.exists(), kind


def read_without_care(kind: str, payload: bytes) -> None:
    if kind == "npz":
        with np.load(io.BytesIO(payload), allow_pickle=True) as arrays:
            assert arrays["model"].shape == (2,)
    elif kind == "bare pickle":
        pickle.loads(payload)
    else:
        found = torch.load(io.BytesIO(payload), weights_only=False)
        if kind == "open":
            found["random"]["more"].close()


def test_the_gadgets_would_work(run: Path) -> None:
    """A reader without care runs them: `weights_only=False`, or numpy's with pickles."""
    marker = run.parent / "marker"
    left_out = {"persistent_id", "legacy tar"}  # need a careless reader of their own, below
    for kind, payload in gadgets(whole(run), marker).items():
        if kind in left_out:
            continue
        marker.unlink(missing_ok=True)
        read_without_care(kind, payload)
        assert marker.exists(), kind
    for payload in (pointing(touch(marker)), pickle.dumps(touch(marker), protocol=2)):
        marker.unlink(missing_ok=True)
        reader = pickle.Unpickler(io.BytesIO(payload))
        reader.persistent_load = lambda pid: pid
        reader.load()
        assert marker.exists()


NONSENSE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no dictionary": lambda content: [content],
    "a number": lambda content: 3,
    "no model": lambda content: {key: value for key, value in content.items() if key != "model"},
    "no state": lambda content: {key: value for key, value in content.items() if key != "state"},
    "model is a list": lambda content: {**content, "model": [1]},
    "state is a number": lambda content: {**content, "state": 7},
    "weights are text": lambda content: {**content, "model": dict.fromkeys(content["model"], "x")},
    "iteration is text": lambda content: {**content, "state": {**content["state"], "iteration": "many"}},
    "log_position is a tensor": lambda content: {
        **content,
        "state": {**content["state"], "log_position": torch.ones(1)},
    },
    "shapes": lambda content: {**content, "model": {key: value[..., None] for key, value in content["model"].items()}},
    "names": lambda content: {**content, "model": {f"x{key}": value for key, value in content["model"].items()}},
}


@pytest.mark.slow
def test_nonsense_under_a_right_hash_is_an_error_with_a_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = whole(run)
    for kind, change in NONSENSE.items():
        damage(run, saved(change(content)))
        for words in COMMANDS:
            status = metvae(*words)
            lines = capsys.readouterr().err.splitlines()
            assert status in (1, 2), (kind, words)
            assert lines[-1].startswith("metvae: error: "), (kind, words)
            assert "checkpoint" in lines[-1], (kind, words, lines[-1])


@pytest.mark.slow
@pytest.mark.parametrize("part", ["optimizer", "scheduler", "adaptations", "random", "sampler"])
def test_a_resume_names_nonsense_in_each_part(run: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = whole(run)
    for wrong in (None, "text", {}, {"state": 1}, {"x": torch.zeros(2)}, [], [1, 2]):
        if wrong == content[part]:
            continue
        damage(run, saved({**content, part: wrong}))
        status = metvae(*COMMANDS[0])
        lines = capsys.readouterr().err.splitlines()
        if status:  # a scheduler takes what it is given, and some parts of a method are empty
            assert lines[-1].startswith("metvae: error: "), (part, wrong)
            assert "checkpoint" in lines[-1], (part, wrong, lines[-1])
        else:
            assert part == "scheduler", wrong


@pytest.mark.slow
def test_the_checkpoint_of_a_density_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert infer("hydra.run.dir=run", "target=gaussian", "sampler=none", "objective=elbo") == 0
    marker, run = tmp_path / "marker", tmp_path / "run"
    damage(run, saved(with_entry(whole(run), "model", touch(marker))))
    before = contents(run)
    capsys.readouterr()
    assert infer("resume=run", "trainer.max_epochs=3") != 0
    assert metvae("infer", "resume=run", "trainer.max_epochs=3") == 2
    assert "refused, it asks for posix.system" in capsys.readouterr().err
    assert contents(run) == before
    assert not marker.exists()
