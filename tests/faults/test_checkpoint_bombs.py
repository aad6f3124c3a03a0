"""Checkpoints that somebody else made: the right hash, and sizes that are not there or more than the file says."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._utils import _rebuild_tensor_v2

from metvae_cli.errors import ConfigError
from metvae_cli.training.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from tests.faults.forged_checkpoints import Gadget, archived, saved, seal
from tests.faults.memory import MEGABYTE, peak_growth


def claimed(shape: tuple[int, ...], stride: tuple[int, ...], elements: int, path: Path) -> bytes:
    """A checkpoint whose only tensor says its size and that of its storage as given; its file has four elements."""
    save_checkpoint(path, {"model": {"weight": torch.arange(4.0)}})
    payload, buffer = path.read_bytes()[:-73], io.BytesIO()
    pickler = _Claiming(buffer, shape, stride, elements)
    pickler.dump({"format": FORMAT, "model": {"weight": _Claim()}})
    return archived(buffer.getvalue(), payload)


class _Claim:
    """Stands for a tensor."""


class _Claiming(pickle.Pickler):
    """Writes a `_Claim` as torch writes a tensor."""

    def __init__(self, file: io.BytesIO, shape: tuple[int, ...], stride: tuple[int, ...], elements: int) -> None:
        super().__init__(file, protocol=2)
        self.said = (shape, stride, elements)

    def persistent_id(self, obj: Any) -> Any:
        return (
            ("storage", torch.FloatStorage, "0", "cpu", self.said[2]) if isinstance(obj, str) and obj == "?" else None
        )

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _Claim):
            return _rebuild_tensor_v2, ("?", 0, self.said[0], self.said[1], False, {})
        return NotImplemented


def test_what_is_claimed_is_what_is_there(tmp_path: Path) -> None:
    """The way in which the next test writes checkpoints gives whole ones too."""
    path = tmp_path / "last.pt"
    path.write_bytes(seal(claimed((2, 2), (2, 1), 4, path)))
    assert load_checkpoint(path)["model"]["weight"].tolist() == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("shape", "stride", "elements"),
    [
        ((4,), (1,), 5),  # read past the end of the file
        ((4,), (1,), 10**10),
        ((4,), (1,), -1),
        ((10**12,), (0,), 4),  # one number, repeated: room for it is made where it is copied
        ((10**6, 10**6), (0, 0), 4),
        ((3,), (2,), 4),
        ((-1,), (1,), 4),
    ],
)
def test_absurd_sizes_are_refused_without_making_room(
    shape: tuple[int, ...], stride: tuple[int, ...], elements: int, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(seal(claimed(shape, stride, elements, path)))

    def load() -> None:
        with pytest.raises(ConfigError, match=r"refused, it (says|holds)"):
            load_checkpoint(path)

    assert peak_growth(load) < 20 * MEGABYTE


def bombs(path: Path) -> dict[str, bytes]:
    """Files of some hundred kilobytes that would take 200 megabytes."""
    size = 200 * MEGABYTE
    save_checkpoint(path, {"model": {"weight": torch.zeros(4)}})
    original = path.read_bytes()[:-73]
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    return {
        "compressed": archived(content, original, zipfile.ZIP_DEFLATED, **{"0": bytes(size)}),
        "bytearray": saved({"format": FORMAT, "state": Gadget(bytearray, size)}),
        "tensor": saved({"format": FORMAT, "state": Gadget(torch.Tensor, size)}),
        "memo": archived(b"\x80\x02}r" + (size // 8).to_bytes(4, "little") + b".", original),
    }


def test_bombs_are_refused_and_do_not_go_off(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for kind, payload in bombs(path).items():
        assert len(payload) < MEGABYTE
        path.write_bytes(seal(payload))

        def load() -> None:
            with pytest.raises(ConfigError, match="refused, it"):
                load_checkpoint(path)

        assert peak_growth(load) < 20 * MEGABYTE, kind


def test_the_measure_of_memory_sees_a_bomb(tmp_path: Path) -> None:
    payload = bombs(tmp_path / "last.pt")["bytearray"]
    assert peak_growth(lambda: torch.load(io.BytesIO(payload), weights_only=True)) > 150 * MEGABYTE
