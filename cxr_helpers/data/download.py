"""A downloader that retries, resumes and verifies, and whose target exists only when it is whole.

Bytes on their way stand in `<target>.part`: kept while they can be resumed, removed where they are wrong.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm.auto import tqdm

try:
    import fcntl
except ImportError:  # Windows has none: two processes that download one file at once end in a wrong MD5
    fcntl = None  # type: ignore[assignment]

__all__ = ["DownloadError", "download"]

MAX_WAIT_S = 60.0
PASSING = (TimeoutError, ConnectionError, http.client.HTTPException)  # worth another try, as are these:
PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(OSError):
    """A file could not be had; the message is a clause that names the reason of each address."""


class _TryAgainError(Exception):
    """What may pass: the same address is asked once more."""


def download(url: str, target: Path, md5: str, *, tries: int = 4, timeout_s: float = 30.0, wait_s: float = 1.0) -> Path:
    """Download a file of known MD5 into `target`, which is never overwritten, resuming what an earlier call left.

    Args:
        url: address of the file; `<CXR_MIRROR>/<file name>` is asked before it where `CXR_MIRROR` is set.
        target: where the file goes; returned as it is where it exists.
        md5: hex digest the file must have.
        tries: attempts per address without a new byte, 1 or more.
        timeout_s: silence after which an attempt counts as failed.
        wait_s: pause after the first failed attempt; doubles with each, up to a minute.

    Raises:
        DownloadError: no address served these bytes, or the folder cannot be written.
    """
    mirror, problems = os.environ.get("CXR_MIRROR", "").rstrip("/"), []
    for address in [f"{mirror}/{target.name}"] * bool(mirror) + [url]:
        try:
            return _download_from(address, target, md5, tries, timeout_s, wait_s)
        except DownloadError as error:
            problems.append(f"{urlsplit(address).netloc.rpartition('@')[2] or address}: {error}")
    raise DownloadError("; ".join(problems))


def _download_from(url: str, target: Path, md5: str, tries: int, timeout_s: float, wait_s: float) -> Path:
    part = target.with_name(target.name + ".part")
    failures, furthest = 0, _size(part)
    while not target.exists():
        start = _size(part)
        try:
            _fetch(url, part, start, timeout_s)
            _finish(part, target, md5, resumed=start > 0)
        except _TryAgainError as error:
            failures = 0 if _size(part) > furthest else failures + 1  # a slow line that gets on is not a failing one
            furthest = max(furthest, _size(part))
            if failures >= tries:
                raise DownloadError(f"{error}, after {tries} tries") from error
            time.sleep(min(wait_s * 2 ** max(failures - 1, 0), MAX_WAIT_S))
    part.unlink(missing_ok=True)  # begun while another process was just done
    return target


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch(url: str, part: Path, start: int, timeout_s: float) -> None:
    """Append to `part` what is missing; return when the server says it is whole."""
    headers = {"User-Agent": "cxr-helpers"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s) as response:
            _append(response, part, start)
    except (OSError, http.client.HTTPException, ValueError) as error:
        status, cause = getattr(error, "code", None), getattr(error, "reason", error)
        if status == 416 and start:  # nothing is left to send: the MD5 decides
            return
        said = f"HTTP {status} {cause}" if status else str(cause) or type(cause).__name__
        said = "host not found, is there a network?" if isinstance(cause, socket.gaierror) else said
        passing = status in PASSING_STATUS or isinstance(cause, PASSING)
        raise (_TryAgainError if passing else DownloadError)(" ".join(said.split())) from error


def _append(response: Any, part: Path, start: int) -> None:
    """Write a body behind the first `start` bytes of `part`, or in their place where it begins anew."""
    length, resumes = response.headers.get("Content-Length", ""), "Content-Range" in response.headers
    first = start if resumes else 0
    total = first + int(length) if length.isascii() and length.isdigit() else None
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as handle:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)  # released with the handle
        if os.fstat(handle.fileno()).st_size != start:
            raise _TryAgainError("another process is downloading the same file")
        handle.truncate(first)
        with tqdm.wrapattr(handle, "write", desc=part.stem, total=total, initial=first, disable=None) as counted:
            shutil.copyfileobj(response, counted, 1 << 18)
        handle.flush()
        os.fsync(handle.fileno())
        if total is not None and handle.tell() < total:
            raise _TryAgainError(f"connection closed after {handle.tell()} of {total} bytes")


def _finish(part: Path, target: Path, md5: str, resumed: bool) -> None:
    """Turn a whole `part` into the target, or remove it; a resumed one may have begun as another file: once more."""
    try:
        with part.open("rb") as handle:
            found = hashlib.file_digest(handle, "md5").hexdigest()
        if found == md5:
            os.replace(part, target)
            return
        part.unlink()
    except FileNotFoundError as error:
        raise _TryAgainError("another process took the partial file") from error
    raise (_TryAgainError if resumed else DownloadError)(f"what was served has MD5 {found}, expected {md5}")
