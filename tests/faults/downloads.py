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
from samples import one_sentence

from cxr_helpers.data.download import DownloadError, download

from .registry import fault

BODY = np.random.default_rng(0).bytes(200_000)
MD5 = hashlib.md5(BODY).hexdigest()
PASSING = ("503", "429", "truncate", "stall", "cut header", "no range")


class Handler(BaseHTTPRequestHandler):
    """Answers with the next behaviour of the server's script, then with the whole body."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers["Range"]))
        behaviour = server.script.pop(0) if server.script else "whole"
        begin = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if behaviour == "cut header":
            self.wfile.write(b"HTTP/1.1 20")
        elif behaviour.isdigit() or begin >= len(server.body):
            self.send_error(int(behaviour) if behaviour.isdigit() else 416)
        else:
            self.send(server, behaviour, 0 if behaviour == "no range" else begin)

    def send(self, server: Any, behaviour: str, start: int) -> None:
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


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: list[str], body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.body, self.released = list(script), body, threading.Event()
        self.asked: list[tuple[str, str | None]] = []
        self.base = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has hung up is what is tested


@contextmanager
def serving(script: list[str], body: bytes = BODY) -> Iterator[Server]:
    """A server on this machine."""
    with Server(script, body) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


def fetch(server: Server, folder: Path, **options: Any) -> Path:
    """Download with short waits."""
    return download(f"{server.base}/a.npz", folder / "a.npz", MD5, **{"wait_s": 0.01, "timeout_s": 0.3} | options)


@fault("a server that answers 503 or 429, truncates and stalls, then serves", category="downloads", tries=36, quick=6)
def passing(folder: Path, seed: int) -> None:
    with serving([PASSING[(seed + i) % len(PASSING)] for i in range(1 + seed % 3)]) as server:
        assert fetch(server, folder).read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["a.npz"]


@fault("a server that never recovers, or serves something else", category="downloads", tries=4, quick=4)
def lasting(folder: Path, seed: int) -> None:
    script = ([], ["404"], ["cut header"] * 50, ["500"] * 50)[seed]
    with serving(script, b"<html>sign in to this network</html>") as server:
        try:
            fetch(server, folder)
        except DownloadError as error:
            assert "127.0.0.1" in one_sentence(error)
        else:
            raise AssertionError("something was made of nothing")
    assert list(folder.iterdir()) == []


@fault("two downloads of one file at once from a failing server", category="downloads", tries=10)
def at_once(folder: Path, seed: int) -> None:
    results: list[bytes] = []
    with serving(["truncate", "503", "stall", "truncate"]) as server:
        workers = [
            threading.Thread(target=lambda: results.append(fetch(server, folder, tries=9).read_bytes())) for _ in "ab"
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
    assert results == [BODY, BODY], f"{len(results)} of 2 came to an end"
    assert [path.name for path in folder.iterdir()] == ["a.npz"]
