"""The downloader against a local server that truncates, stalls, lies and honours or ignores ranges."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cxr_helpers.data.download import MAX_WAIT_S, ChecksumError, DownloadError, download

BODY = bytes(range(256)) * 4096  # 1 MiB
MD5 = hashlib.md5(BODY).hexdigest()


class Server:
    """Answers each request with the next behaviour of `script`, then with "whole"."""

    def __init__(self) -> None:
        self.script: list[str] = []
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        self.body = BODY
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.paths.append(request.path)
        self.ranges.append(request.headers["Range"])
        behaviour = self.script.pop(0) if self.script else "whole"
        if behaviour.isdigit():
            request.send_response(int(behaviour))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        asked = int((self.ranges[-1] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if asked >= len(self.body):
            request.send_error(416)
            return
        start = 0 if behaviour == "no range" else asked
        body = self.body[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if behaviour == "truncate" else body)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture(autouse=True)
def without_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXR_MIRROR", raising=False)


def fetch(server: Server, target: Path, md5: str = MD5, **options: Any) -> Path:
    return download(f"{server.base}/{target.name}", target, md5, wait_s=0.01, timeout_s=5, progress=False, **options)


def test_a_whole_answer_becomes_the_target_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    target = fetch(server, tmp_path / "new" / "a.npz")
    assert target.read_bytes() == BODY
    assert [p.name for p in target.parent.iterdir()] == ["a.npz"]


def test_a_truncated_answer_is_resumed_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.script = ["truncate", "truncate"]
    assert fetch(server, tmp_path / "a.npz").read_bytes() == BODY
    assert server.ranges == [None, f"bytes={len(BODY) // 2}-", f"bytes={len(BODY) * 3 // 4}-"]


def test_a_slow_line_that_gets_on_is_not_given_up_after_the_last_try(server: Server, tmp_path: Path) -> None:
    server.script = ["truncate"] * 6
    assert fetch(server, tmp_path / "a.npz", tries=2).read_bytes() == BODY


def test_a_server_that_ignores_the_range_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.script = ["truncate", "no range"]
    assert fetch(server, tmp_path / "a.npz").read_bytes() == BODY


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.script = ["503", "429", "whole"]
    assert fetch(server, tmp_path / "a.npz").read_bytes() == BODY
    assert len(server.ranges) == 3


def test_a_server_that_stays_busy_is_given_up_after_the_tries_and_nothing_is_left(
    server: Server, tmp_path: Path
) -> None:
    server.script = ["503"] * 9
    with pytest.raises(DownloadError, match=r"HTTP 503 .* after 3 tries"):
        fetch(server, tmp_path / "new" / "a.npz", tries=3)
    assert len(server.ranges) == 3
    assert list(tmp_path.iterdir()) == []


def test_pauses_double_up_to_a_bound(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.script = ["503"] * 6
    with pytest.raises(DownloadError, match="after 6 tries"):
        download(f"{server.base}/a", tmp_path / "a", MD5, tries=6, wait_s=MAX_WAIT_S / 5, progress=False)
    assert pauses == pytest.approx([MAX_WAIT_S * share for share in (0.2, 0.4, 0.8, 1, 1)])


def test_a_file_that_is_not_there_is_not_asked_for_twice(server: Server, tmp_path: Path) -> None:
    server.script = ["404"] * 9
    with pytest.raises(DownloadError, match="HTTP 404"):
        fetch(server, tmp_path / "a.npz")
    assert len(server.ranges) == 1


def test_wrong_bytes_are_fatal_and_removed(server: Server, tmp_path: Path) -> None:
    server.body = b"an error page"
    with pytest.raises(ChecksumError, match=f"expected {MD5}"):
        fetch(server, tmp_path / "a.npz")
    assert len(server.ranges) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_partial_file_of_another_version_costs_one_fresh_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.npz.part").write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path / "a.npz").read_bytes() == BODY
    assert server.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("extra", [b"", b"x"], ids=["whole", "too long"])
def test_a_partial_file_with_nothing_left_to_send_is_checked_not_trusted(
    server: Server, tmp_path: Path, extra: bytes
) -> None:
    (tmp_path / "a.npz.part").write_bytes(BODY + extra)
    assert fetch(server, tmp_path / "a.npz").read_bytes() == BODY
    assert len(server.ranges) == 1 + len(extra)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_target_that_exists_is_never_touched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"mine")
    assert fetch(server, tmp_path / "a.npz").read_bytes() == b"mine"
    assert server.ranges == []


def test_the_mirror_is_asked_first_and_the_origin_after_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_MIRROR", f"{server.base}/mirror/")
    server.script = ["404"]
    assert fetch(server, tmp_path / "a.npz").read_bytes() == BODY
    assert server.paths == ["/mirror/a.npz", "/a.npz"]


def test_a_host_that_cannot_be_resolved_fails_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"nowhere\.invalid: host not found"):
        download("http://nowhere.invalid/a.npz", tmp_path / "new" / "a.npz", MD5, wait_s=60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="file cannot be written"):
        fetch(server, tmp_path / "file" / "a.npz")


def test_a_disk_that_is_too_small_is_noticed_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(DownloadError, match="0 MB free, 1 MB are needed"):
        fetch(server, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_want_the_same_file_both_get_it(server: Server, tmp_path: Path) -> None:
    server.script = ["truncate", "truncate"]
    results: list[bytes] = []
    workers = [
        threading.Thread(target=lambda: results.append(fetch(server, tmp_path / "a.npz").read_bytes()))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert results == [BODY, BODY]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
