"""Checkpoints: whole or not there, exactly what was written or refused, and never code."""

import builtins
import hashlib
import io
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metvae_cli.errors import ConfigError
from metvae_cli.training import checkpoint
from metvae_cli.training.checkpoint import load_checkpoint, random_states, restore_random_states, save_checkpoint

CONTENT: dict[str, Any] = {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "state": {"epoch": 3, "means": {}}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.pt"
    save_checkpoint(path, CONTENT)
    return path


def seal(payload: bytes) -> bytes:
    """Bytes with the footer that a checkpoint has."""
    return payload + b"\nsha256:" + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def sealed(path: Path, content: Any) -> Path:
    """A file that differs from a checkpoint in its content alone."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(seal(buffer.getvalue()))
    return path


def refusal(path: Path) -> str:
    """The one line with which a checkpoint is refused."""
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_was_saved_is_loaded(path: Path) -> None:
    content = load_checkpoint(path)
    assert torch.equal(content["model"]["weight"], CONTENT["model"]["weight"])
    assert content["state"] == CONTENT["state"]
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


def test_torch_reads_a_checkpoint_as_it_is(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    assert torch.equal(content["model"]["weight"], CONTENT["model"]["weight"])


@pytest.mark.parametrize("where", ["torch.save", "replace", "fsync"])
def test_a_failed_save_leaves_the_old_checkpoint_and_no_other_file(
    path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def fail(*arguments: object, **named: object) -> None:
        raise OSError("disk full")

    owner: Any = {"torch.save": torch, "replace": Path, "fsync": os}[where]
    monkeypatch.setattr(owner, where.rpartition(".")[2], fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"model": {}})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


def test_a_half_written_file_is_never_under_the_checkpoints_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = path.read_bytes(), []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append((path.read_bytes() == before, load_checkpoint(self)["state"]["epoch"]))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    save_checkpoint(path, {"state": {"epoch": 7}})
    assert seen == [(True, 7)]
    assert load_checkpoint(path)["state"] == {"epoch": 7}


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.5, 0.9, 0.99, -1, -64, -72, -73])
def test_a_truncated_checkpoint_is_refused(path: Path, kept: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(kept)] if kept < 0 else data[: int(kept * len(data))])
    assert "truncated" in refusal(path)


def test_a_flipped_bit_is_never_loaded(path: Path) -> None:
    data = path.read_bytes()
    generator = random.Random(0)
    places = [generator.randrange(len(data)) for _ in range(50)] + list(range(len(data) - 73, len(data)))
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        assert "damaged" in (message := refusal(path)) or "truncated" in message


def test_damage_is_reported_with_both_hashes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    expected = hashlib.sha256(bytes(data[:-73])).hexdigest()
    data[100] ^= 1
    path.write_bytes(data)
    found = hashlib.sha256(bytes(data[:-73])).hexdigest()
    message = refusal(path)
    assert found[:16] in message
    assert expected[:16] in message


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.pt")


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    assert "not a metvae checkpoint" in refusal(path)
    assert "another version" in refusal(sealed(path, {"weights": torch.zeros(3)}))
    assert "another version" in refusal(sealed(path, torch.zeros(3)))


@pytest.mark.parametrize("payload", [b"", b"nonsense", b"\x80\x02.", b"PK\x03\x04" + b"\0" * 200])
def test_no_bytes_under_a_right_hash_bring_a_traceback(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(seal(payload))
    refusal(path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    newer = sealed(tmp_path / "last.pt", {"format": checkpoint.FORMAT + 1, **CONTENT})
    assert f"expected format {checkpoint.FORMAT}" in refusal(newer)


class Gadget:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("kind", ["system", "open", "exec", "nested", "array", "path"])
def test_a_checkpoint_cannot_run_code(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    system = Gadget(os.system, f"touch {marker}")
    content: Any = {
        "system": system,
        "open": Gadget(builtins.open, str(marker), "w"),
        "exec": Gadget(builtins.exec, f"open({str(marker)!r}, 'w')"),
        "nested": {"format": checkpoint.FORMAT, **CONTENT, "state": {"running": [{"a": (1, system)}]}},
        "array": {"format": checkpoint.FORMAT, "state": np.array([system, None], dtype=object)},
        "path": {"format": checkpoint.FORMAT, "state": Gadget(Path.touch, marker)},
    }[kind]
    path = sealed(tmp_path / "last.pt", content)
    assert "refused" in refusal(path)
    assert not marker.exists()


def test_the_gadgets_would_work(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "last.pt"
    torch.save({"state": Gadget(Path.touch, marker)}, path)
    torch.load(path, weights_only=False)
    assert marker.exists()


def draws() -> tuple[list[float], list[float], list[float]]:
    normals = [random.gauss(0, 1) for _ in range(3)]
    return torch.rand(3).tolist(), [float(value) for value in np.random.standard_normal(3)], normals


def test_random_streams_go_on_where_they_were(tmp_path: Path) -> None:
    draws()  # an odd number of normals: both streams hold a cached one
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"random": random_states()})
    expected = draws()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    assert draws() != expected
    restore_random_states(load_checkpoint(path)["random"])
    assert draws() == expected
