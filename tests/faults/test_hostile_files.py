"""Data files that may be anybody's: refused in one line, without the memory that they ask for, and nothing is run."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metvae_cli.data.array_files import ArrayFileError, read_arrays
from metvae_cli.data.csv_reader import CsvError, read_table
from metvae_cli.data.csv_table import CsvData
from metvae_cli.data.folder import FolderData
from metvae_cli.data.idx import images_from, read_file
from metvae_cli.data.image_files import ImageFileError, decode_all, header
from metvae_cli.data.matlab import read_mat
from metvae_cli.data.official import Root
from metvae_cli.errors import ConfigError
from tests.faults.memory import MEGABYTE, peak_growth
from tests.runs import files, metvae

REFUSED = (ArrayFileError, CsvError, ImageFileError, ConfigError)
ROOM = 40 * MEGABYTE
# A pickle that asks for a byte array of 2 GiB.
BYTEARRAY = b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R."


class Gadget:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def npy(shape: str, descr: str = "'<f8'", follows: int = 64) -> bytes:
    """An array whose header says what is given, and whose data are some bytes."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(follows)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def lying(members: dict[str, bytes], size: int) -> bytes:
    """A zip archive whose directory says another size of its first member."""
    content = bytearray(zipped(members))
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", size)
    return bytes(content)


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pickled(gadget: Gadget) -> dict[str, bytes]:
    """Files that run what they hold where they are read without care."""
    array, table = io.BytesIO(), io.BytesIO()
    np.save(array, np.array([gadget, None], dtype=object), allow_pickle=True)
    np.savez(table, allow_pickle=True, x=np.array([gadget], dtype=object))
    tensor, old = io.BytesIO(), io.BytesIO()
    torch.save({"x": gadget}, tensor)
    torch.save(gadget, old, _use_new_zipfile_serialization=False)
    return {"a.npy": array.getvalue(), "b.npz": table.getvalue(), "c.pt": tensor.getvalue(), "d.pt": old.getvalue()}


def absurd(folder: Path) -> dict[str, bytes]:
    """Files of which each says or unpacks to more than a machine has, or more than there is."""
    huge = 2**20 * 300
    return {
        "shape.npy": npy("(1000000000, 1000000)"),
        "negative.npy": npy("(-1, 4)"),
        "overflow.npy": npy("(4294967296, 4294967296, 4294967296)"),
        "code.npy": npy(f"__import__('os').system('touch {folder / 'marker'}')"),
        "objects.npy": npy("(2,)", "'|O'"),
        "fields.npy": npy("(2,)", "[('a', '<f8'), ('b', '|O')]"),
        "header.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"x",
        "deep.npy": npy("(" * 40 + ")" * 40),
        "shape.npz": zipped({"x.npy": npy("(1000000000, 1000000)")}),
        "bomb.npz": zipped({"x.npy": npy("(2,)") + bytes(huge), "y.npy": npy("(99999999999,)")}),
        "traversal.npz": zipped({"../../x.npy": b"x", "/etc/x.npy": b"x"}),
        "storage.pt": zipped(
            {"a/data.pkl": b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R.", "a/version": b"3"}, 0
        ),
        "cut.pt": b"PK\x03\x04" + bytes(200),
    }


def test_no_array_file_runs_what_it_holds(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name, content in pickled(Gadget(marker)).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArrayFileError):
            read_arrays(tmp_path / name)
        assert not marker.exists(), name
    np.load(tmp_path / "a.npy", allow_pickle=True)  # a reader without care
    assert marker.exists()


def refused(read: Callable[[], object], name: str = "") -> Callable[[], None]:
    """Reads, and holds that it is refused in one line."""

    def attempt() -> None:
        with pytest.raises(REFUSED) as caught:
            read()
        assert "\n" not in str(caught.value), name

    return attempt


def test_absurd_arrays_are_refused_without_room_for_them(tmp_path: Path) -> None:
    for name, content in absurd(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        before = files(tmp_path)
        del content
        grown = peak_growth(refused(lambda name=name: read_arrays(tmp_path / name), name))
        assert grown < ROOM, (name, grown)
        assert files(tmp_path) == before, name


@pytest.mark.parametrize(
    "content",
    [
        b"1,2\n\x003,4\n",
        b"a,b\n=cmd|' /C calc'!A0,2\n",
        b"a,b\n@SUM(1),-\n",
        b"1,2\n1e400,2\n",
        b"\xff\xfe\x00",
        b'"' + b"x" * 200_000,
        b"a,a\n1,2\n",
        b"1,2\n" + b"1," * 200_000 + b"1\n",
        "a,b\n\u0661,\u202e2\n".encode(),
    ],
    ids=[
        "NUL",
        "formula",
        "formula of two",
        "1e400",
        "no text",
        "endless cell",
        "twice",
        "endless line",
        "other digits",
    ],
)
def test_a_table_of_anything_else_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)

    def read() -> None:
        table = read_table(path, ",", None, None)
        table.values(range(len(table.names)))

    assert peak_growth(refused(read)) < ROOM


@pytest.mark.slow
def test_a_table_of_a_million_columns_takes_what_its_text_takes(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes((b",".join([b"1"] * 10**6) + b"\n") * 2)
    size = path.stat().st_size
    told: list[str] = []

    def read() -> None:
        data = CsvData(str(path), num_valid=1, num_test=1)
        with pytest.raises(ConfigError) as caught:
            data.load()
        told.append(str(caught.value))

    assert peak_growth(read) < 150 * size
    assert len(told[0]) < 400


def test_images_larger_than_their_files_are_refused_by_their_headers(tmp_path: Path) -> None:
    for name, content in {
        "wide.png": png(60_000, 60_000),
        "wider.png": png(2**31 - 1, 2**31 - 1),
        "none.png": png(0, 10),
        "script.png": b"%!PS-Adobe\n(file) run\n",
        "page.jpg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "bitmap.png": b"BM" + bytes(60),
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert peak_growth(refused(lambda path=path: header(path))) < ROOM
        path.unlink()
    bomb = tmp_path / "rows.png"  # says 8 x 8 pixels, and unpacks to 200 megabytes
    bomb.write_bytes(png(8, 8, bytes(200 * MEGABYTE)))

    def read() -> None:
        decode_all([bomb], (1, *header(bomb)), 1)

    assert peak_growth(read) < ROOM


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """Pipes without a writer and devices without an end."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to("nowhere")
    for name in ("pipe.png", "zero.png", "gone.png"):
        refused(lambda name=name: header(tmp_path / name))()
    refused(FolderData(str(tmp_path), num_valid=1, num_test=1).load)()
    for suffix in (".npy", ".npz", ".pt"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
        for stem in ("pipe", "zero"):
            refused(lambda name=stem + suffix: read_arrays(tmp_path / name))()
    for name in ("pipe.png", "zero.png"):
        refused(lambda name=name: read_table(tmp_path / name, ",", None, None))()
    root = Root(str(tmp_path))
    for name in ("pipe.png", "zero.png"):
        refused(lambda name=name: root.read(tmp_path / name, 1000))()


@pytest.mark.slow
def test_archives_unpack_to_no_more_than_was_published(tmp_path: Path) -> None:
    root, name = Root(str(tmp_path)), "images"
    with gzip.open(tmp_path / f"{name}.gz", "wb") as file:
        for _ in range(50):
            file.write(bytes(4 * MEGABYTE))
    assert peak_growth(refused(lambda: read_file(root, tmp_path, name, None, MEGABYTE))) < ROOM
    for count, rows in ((2**32 - 1, 28), (10, 2**32 - 1), (2**31, 2**31)):
        idx = struct.pack(">IIII", 2051, count, rows, rows) + bytes(64)
        assert peak_growth(refused(lambda idx=idx: images_from(root, "x", idx))) < ROOM
    (tmp_path / "a.zip").write_bytes(zipped({"x": bytes(200 * MEGABYTE), "../../y": b"1"}))
    (tmp_path / "b.zip").write_bytes(lying({"x": bytes(200 * MEGABYTE)}, 1000))
    before = files(tmp_path)
    for archive in ("a.zip", "b.zip"):

        def read(archive: str = archive) -> None:
            with root.unzip(tmp_path / archive) as opened:
                root.member(opened, "x", MEGABYTE)

        assert peak_growth(refused(read)) < ROOM
    assert files(tmp_path) == before


def test_matlab_files_hold_no_more_than_they_say(tmp_path: Path) -> None:
    root, path = Root(str(tmp_path)), tmp_path / "x.mat"
    head = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    for body in (
        struct.pack("<II", 15, 2**31) + b"x",
        struct.pack("<II", 15, 20) + zlib.compress(b"")[:20].ljust(20, b"\0"),
        struct.pack("<II", 14, 2**32 - 8) + bytes(64),
        struct.pack("<II", 14, 56)
        + struct.pack("<IIII", 6, 8, 6, 0)
        + struct.pack("<IIII", 5, 8, 2**31 - 1, 2**31 - 1)
        + bytes(24),
        struct.pack("<II", 3, 8) + bytes(8),
    ):
        path.write_bytes(head + body)
        assert (
            peak_growth(refused(lambda: read_mat(root, path, {"x": [(2, 2)]}))) < 3 * ROOM
        )  # scipy itself is imported


def test_the_published_archive_of_pictures_is_read_only_where_it_is_the_published_one(tmp_path: Path) -> None:
    """A tar archive may hold links and places above: none is opened unless its sum is that of the published one."""
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name, kind in (("../evil", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("device", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            file.addfile(member)
    before = files(tmp_path)
    assert metvae("train", "dataset=cifar10", f"dataset.root={tmp_path}", "dataset.download=false") == 2
    assert files(tmp_path) == before
