"""The downloader against a local server that fails in every way: what arrives is whole, or there is a reason."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_helpers.data import download as module
from cxr_helpers.data.download import DownloadError, download

BODY = np.random.default_rng(0).bytes(200_000)
MD5 = hashlib.md5(BODY).hexdigest()
ERROR_PAGE = b"<html>sign in to this network</html>"


class Handler(BaseHTTPRequestHandler):
    """Answers with the next behaviour of the server's script, then with the whole body."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.headers["Range"])
        behaviour = server.script.pop(0) if server.script else "whole"
        begin = int((self.headers["Range"] or "bytes=0-")[6:-1])
        start = 0 if behaviour == "no range" else begin
        if behaviour.isdigit() or start >= len(server.body):
            self.send_error(int(behaviour) if behaviour.isdigit() else 416)
            return
        body = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: -(-len(body) // 2)] if behaviour in ("truncate", "stall") else body)
        self.wfile.flush()
        if behaviour == "stall":
            server.released.wait(20)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving(script: list[str], body: bytes = BODY) -> Iterator[Any]:
    """A server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here: Any = server
        here.script, here.body, here.asked, here.released = list(script), body, [], threading.Event()
        here.daemon_threads, here.handle_error = True, lambda *_: None  # a client that has hung up is what is tested
        here.url = f"http://127.0.0.1:{server.server_port}/a.npz"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield here
        here.released.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.01)
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)


@pytest.mark.parametrize("script", [["503", "429"], ["truncate", "no range"], ["stall"], ["truncate"] * 9])
def test_what_passes_is_tried_again_and_resumed_where_it_broke_off(script: list[str], tmp_path: Path) -> None:
    with serving(script) as server:
        assert download(server.url, tmp_path / "a.npz", MD5).read_bytes() == BODY
    begins = [int((asked or "bytes=0-")[6:-1]) for asked in server.asked]
    assert server.script == [] and begins == sorted(begins) and ("truncate" in script) == (begins[-1] > 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(("begin", "times"), [(BODY[:1000], 1), (b"x" * 1000, 2), (BODY, 1)])
def test_a_partial_file_is_resumed_a_wrong_one_costs_a_fresh_start(begin: bytes, times: int, tmp_path: Path) -> None:
    (tmp_path / "a.npz.part").write_bytes(begin)
    with serving([]) as server:
        assert download(server.url, tmp_path / "a.npz", MD5).read_bytes() == BODY
    assert server.asked == [f"bytes={len(begin)}-", None][:times]


@pytest.mark.parametrize(
    ("script", "reason", "times"),
    [(["404"] * 9, "404", 1), (["503"] * 9, "503", module.TRIES), ([], "what was served has MD5", 1)],
)
def test_what_does_not_pass_is_said_in_due_time(script: list[str], reason: str, times: int, tmp_path: Path) -> None:
    with serving(script, ERROR_PAGE) as server, pytest.raises(DownloadError, match=rf"127.0.0.1:\d+: .*{reason}"):
        download(server.url, tmp_path / "a.npz", MD5)
    assert len(server.asked) == times and list(tmp_path.iterdir()) == []


def test_of_two_downloads_at_once_one_asks_and_both_have_the_file(tmp_path: Path) -> None:
    with serving(["stall"]) as server, ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: download(server.url, tmp_path / "a.npz", MD5), range(2)))
    assert [path.read_bytes() for path in paths] == [BODY, BODY] and len(server.asked) == 2
