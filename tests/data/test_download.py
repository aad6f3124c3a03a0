"""One file from a real server on this machine: whole, resumed, refused, and never half under its own name."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metvae_cli.data.download import fetch_url

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/whole: as it is. /cut: breaks off half-way, once. /old: knows no ranges. /wrong: other bytes."""

    asked: list[tuple[str, int]] = []  # noqa: RUF012  # of the class: a handler lives for one request
    cuts = 0

    def do_GET(self) -> None:  # the name that http.server calls
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        type(self).asked.append((self.path, start))
        if self.path == "/missing":
            self.send_error(404)
            return
        content = CONTENT[::-1] if self.path == "/wrong" else CONTENT
        ranged = self.path != "/old"
        if ranged and start >= len(content):
            self.send_error(416)
            return
        body = content[start:] if ranged else content
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/cut" and type(self).cuts == 0:
            type(self).cuts += 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is on this machine, whatever the surroundings say."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked, Handler.cuts = [], 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_whole_file(server: str, tmp_path: Path) -> None:
    fetch_url([f"{server}/whole"], tmp_path / "x", tmp_path / ".x.part", MD5)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_that_was_cut_off_goes_on(server: str, tmp_path: Path) -> None:
    target, part = tmp_path / "x", tmp_path / ".x.part"
    with pytest.raises(OSError, match="broke after"):
        fetch_url([f"{server}/cut"], target, part, MD5)
    assert not target.exists()
    half = part.stat().st_size
    assert 0 < half < len(CONTENT)
    fetch_url([f"{server}/cut"], target, part, MD5)
    assert target.read_bytes() == CONTENT
    assert not part.exists()
    assert Handler.asked == [("/cut", 0), ("/cut", half)]


def test_another_address_goes_on_where_the_first_one_broke(server: str, tmp_path: Path) -> None:
    fetch_url([f"{server}/missing", f"{server}/cut", f"{server}/whole"], tmp_path / "x", tmp_path / ".x.part", MD5)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert Handler.asked[-1] == ("/whole", len(CONTENT) // 2)


def test_a_server_that_knows_no_ranges_starts_again(server: str, tmp_path: Path) -> None:
    part = tmp_path / ".x.part"
    part.write_bytes(CONTENT[:1000])
    fetch_url([f"{server}/old"], tmp_path / "x", part, MD5)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_what_is_whole_already_is_only_verified(server: str, tmp_path: Path) -> None:
    part = tmp_path / ".x.part"
    part.write_bytes(CONTENT)
    fetch_url([f"{server}/whole"], tmp_path / "x", part, MD5)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_another_file_is_refused_and_not_gone_on_with(server: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="x arrived with MD5"):
        fetch_url([f"{server}/wrong"], tmp_path / "x", tmp_path / ".x.part", MD5)
    assert list(tmp_path.iterdir()) == []


def test_nobody_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="urlopen error"):
        fetch_url(["http://127.0.0.1:9/x"], tmp_path / "x", tmp_path / ".x.part", MD5)
    assert list(tmp_path.iterdir()) == []
