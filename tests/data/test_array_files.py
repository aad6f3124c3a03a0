"""Files of arrays that are damaged, hostile, too large or not there: one line each, and nothing is run."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metvae_cli.data.array import ArrayData
from metvae_cli.errors import ConfigError
from tests.data.arrays import GREY, error_of, refused, save


def npy(header: str, content: bytes) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def promising(shape: str) -> bytes:
    return npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}", b"1234")


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


class Malice:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("malice",)


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save({"train": Malice()}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", promising("(1000000000000, 1000)"), "1000000000000000 bytes, and holds 4; save it again"),
        ("a.npy", promising("(-1, 4)"), "holds 4; save it again"),
        ("a.npy", b"", "cannot be read as .npy"),
        ("a.npy", b"no array at all", "cannot be read as .npy"),
        ("a.npy", npy("{'descr': oops", b""), "cannot be read as .npy"),
        ("a.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"1"), "holds Python objects"),
        ("a.npz", zipped(train=promising("(1000000000000,)")), "train says (1000000000000,) uint8"),
        ("a.npz", zipped(train=promising("(4,)"))[:-40], "cannot be read as .npz"),
        ("a.npz", zipped(train=b"no array"), "cannot be read as .npz"),
        ("a.npz", b"", "cannot be read as .npz"),
        ("a.pt", b"", "cannot be read as .pt"),
        ("a.pt", b"nothing of torch's", "cannot be read as .pt"),
        ("a.pt", pickled(), "cannot be read as .pt"),
        ("a.csv", b"1,2", "has the suffix .csv; save the data as .npy, .npz, .pt"),
        ("a", b"1,2", "has the suffix none"),
    ],
)
def test_damaged_and_hostile_files(
    tmp_path: Path, name: str, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert message in error_of(ArrayData(path=str(tmp_path / name)))
    assert not (tmp_path / "malice").exists()


def test_truncated_files(tmp_path: Path) -> None:
    for content in (GREY, {"train": GREY}, torch.as_tensor(GREY)):
        path = Path(save(tmp_path, content))
        whole = path.read_bytes()
        for size in (10, 100, 200, len(whole) - 1):
            path.write_bytes(whole[:size])
            error_of(ArrayData(path=str(path)))


def test_more_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 10)
    for content in (GREY, {"train": GREY}, torch.as_tensor(GREY)):
        assert "this machine's memory 100; save fewer data" in refused(tmp_path, content)


def test_paths_that_name_no_file(tmp_path: Path) -> None:
    assert "no such file" in error_of(ArrayData(path=str(tmp_path / "none.npy")))
    (tmp_path / "folder.npy").mkdir()
    assert "is no file" in error_of(ArrayData(path=str(tmp_path / "folder.npy")))
    with pytest.raises(ConfigError, match=r"^dataset\.path=null: name your file"):
        ArrayData().load()
