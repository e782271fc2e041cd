"""Download a file of known MD5: retried, resumed, and under its own name only when it is whole.

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
from urllib.error import HTTPError
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm.auto import tqdm

__all__ = ["DownloadError", "digest_of", "download"]

TRIES = 4  # attempts without a new byte
TIMEOUT_S = 30.0  # silence after which an attempt has failed
WAIT_S, MAX_WAIT_S = 1.0, 60.0  # pause after the first failed attempt; doubles with each, up to a minute
FAILING = (OSError, http.client.HTTPException)
PASSING = (TimeoutError, ConnectionError, http.client.HTTPException)  # worth another try, as are these:
PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(OSError):
    """A file could not be had; the message is a clause that says from where and why."""


def digest_of(path: Path, kind: str) -> str:
    """Hex digest of a file by the algorithm of that name: "md5" or "sha256"."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, kind).hexdigest()


def download(url: str, target: Path, md5: str) -> Path:
    """Download a file of that MD5 into `target`, resuming what an earlier call left; one that exists stays as it is.

    Raises:
        DownloadError: the address does not serve these bytes, or the folder cannot be written.
    """
    if target.exists():
        return target
    lock = target.with_name(target.name + ".lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # of two processes one downloads, the other finds the target
            try:
                _complete(target.with_name(target.name + ".part"), url, target, md5)
            finally:
                lock.unlink(missing_ok=True)
    except (*FAILING, ValueError) as error:
        cause = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        said = "host not found, is there a network?" if isinstance(cause, socket.gaierror) else str(cause)
        raise DownloadError(f"{urlsplit(url).netloc or url}: {' '.join(said.split())}") from error
    return target


def _complete(part: Path, url: str, target: Path, md5: str) -> None:
    failures = furthest = 0
    while not target.exists():
        start = part.stat().st_size if part.is_file() else 0
        if start > furthest:  # a slow line that gets on is not a failing one
            failures, furthest = 0, start
        try:
            _fetch(url, part, start)
        except FAILING as error:
            failures += 1
            passing = isinstance(getattr(error, "reason", error), PASSING)
            if failures >= TRIES or not (passing or getattr(error, "code", None) in PASSING_STATUS):
                raise
            time.sleep(min(WAIT_S * 2 ** (failures - 1), MAX_WAIT_S))
            continue
        if (found := digest_of(part, "md5")) == md5:
            os.replace(part, target)
            return
        part.unlink()
        if not start:  # what was resumed may have begun as another file: once more
            raise ValueError(f"what was served has MD5 {found}, expected {md5}")


def _fetch(url: str, part: Path, start: int) -> None:
    """Write what is missing behind the first `start` bytes of `part`, or all of it where the server begins anew."""
    headers = {"User-Agent": "cxr-helpers"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send: the MD5 decides
            return
        raise
    with response, part.open("ab") as handle:
        first = start if "Content-Range" in response.headers else 0
        total = first + int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        handle.truncate(first)
        with tqdm.wrapattr(handle, "write", desc=part.stem, total=total, initial=first, disable=None) as counted:
            shutil.copyfileobj(response, counted, 1 << 18)
        if total is not None and handle.tell() < total:
            raise ConnectionError(f"connection closed after {handle.tell()} of {total} bytes")
