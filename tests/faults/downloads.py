"""A server that fails in every way: what arrives is whole, or there is nothing and a sentence that says why."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from cxr_helpers.data.download import ChecksumError, DownloadError, download

from .archives import said_in_one_sentence
from .registry import fault

BODY = np.random.default_rng(0).bytes(200_000)
MD5 = hashlib.md5(BODY).hexdigest()
PASSING = ("503", "429", "truncate", "stall", "cut header", "no range", "retry after nonsense", "length of nonsense")


class _Handler(BaseHTTPRequestHandler):
    """Answers with the next behaviour of the server's script, then with the whole body."""

    def do_GET(self) -> None:
        server: Any = self.server
        behaviour = server.script.pop(0) if server.script else "whole"
        if behaviour == "cut header":
            self.wfile.write(b"HTTP/1.1 20")
            return
        if behaviour.isdigit() or behaviour == "retry after nonsense":
            self.send_response(503 if not behaviour.isdigit() else int(behaviour))
            self.send_header("Retry-After", "\xb2" if not behaviour.isdigit() else "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if asked >= len(server.body):
            self.send_error(416)
            return
        self._send(server, behaviour, 0 if behaviour == "no range" else asked)

    def _send(self, server: Any, behaviour: str, start: int) -> None:
        body = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", "\xb2" if behaviour == "length of nonsense" else str(len(body)))
        self.end_headers()
        share = server.rng.integers(1, len(body)) if len(body) > 1 else len(body)
        self.wfile.write(body[:share] if behaviour in ("truncate", "stall") else body)
        self.wfile.flush()
        if behaviour == "stall":
            server.released.wait(20)

    def log_message(self, *args: Any) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has hung up is what is tested


@contextmanager
def serving(script: list[str], seed: int = 0, body: bytes = BODY) -> Iterator[str]:
    """A server on this machine; its address."""
    server: Any = _Quiet(("127.0.0.1", 0), _Handler)
    server.script, server.body, server.rng = list(script), body, np.random.default_rng(seed)
    server.released = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


def fetch(base: str, folder: Path, **options: Any) -> Path:
    """Download with short waits."""
    given = {"wait_s": 0.01, "timeout_s": 0.3, "progress": False, "tries": 4} | options
    return download(f"{base}/a.npz", folder / "a.npz", MD5, **given)


def nothing_is_left(folder: Path) -> None:
    left = [path.name for path in folder.iterdir()]
    assert left == [], f"left behind: {left}"


@fault(
    "a server that answers 503 or 429, truncates, stalls and lies, then serves", category="downloads", tries=60, quick=5
)
def passing(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    script = [PASSING[(seed + i) % len(PASSING)] for i in range(int(rng.integers(1, 4)))]
    with serving(script, seed) as base:
        assert fetch(base, folder).read_bytes() == BODY, script
    assert [path.name for path in folder.iterdir()] == ["a.npz"]


@fault("a server that never recovers", category="downloads", tries=12, quick=3)
def lasting(folder: Path, seed: int) -> None:
    behaviour = ("503", "404", "cut header", "500", "retry after nonsense", "403")[seed % 6]
    with serving([behaviour] * 50, seed) as base:
        try:
            fetch(base, folder)
        except DownloadError as error:
            assert "127.0.0.1" in said_in_one_sentence(error)
        else:
            raise AssertionError("something was made of nothing")
    nothing_is_left(folder)


@fault("wrong bytes under the right name", category="downloads", tries=20, quick=2)
def wrong_bytes(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wrong = bytearray(BODY)
    wrong[rng.integers(len(wrong))] ^= 1 << int(rng.integers(8))
    with serving([], seed, bytes(wrong) if seed % 2 else b"<html>sign in to this network</html>") as base:
        try:
            fetch(base, folder)
        except ChecksumError as error:
            assert MD5 in said_in_one_sentence(error)
        else:
            raise AssertionError("wrong bytes were kept")
    nothing_is_left(folder)


@fault("a mirror that serves wrong bytes, the origin right ones", category="downloads", tries=10, quick=1)
def wrong_mirror(folder: Path, seed: int) -> None:
    with serving([], seed, b"an old version") as mirror, serving([], seed) as origin:
        target = download(
            [f"{mirror}/a.npz", f"{origin}/a.npz"], folder / "a.npz", MD5, wait_s=0.01, timeout_s=1, progress=False
        )
    assert target.read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["a.npz"]


@fault("a partial file of random bytes from an earlier download", category="downloads", tries=30, quick=2)
def strange_part(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(0, 2 * len(BODY)))
    (folder / "a.npz.part").write_bytes(BODY[:length] if seed % 3 == 0 else rng.bytes(length))
    with serving([], seed) as base:
        assert fetch(base, folder).read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["a.npz"]


@fault("two downloads of one file at once from a failing server", category="downloads", tries=15, quick=1)
def at_once(folder: Path, seed: int) -> None:
    results: list[bytes] = []
    with serving(["truncate", "503", "stall", "truncate"], seed) as base:
        workers = [
            threading.Thread(target=lambda: results.append(fetch(base, folder, tries=9).read_bytes())) for _ in "ab"
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
    assert results == [BODY, BODY], f"{len(results)} of 2 came to an end"
    assert [path.name for path in folder.iterdir()] == ["a.npz"]
