"""A downloader that retries, resumes and verifies, and whose target exists only when it is whole.

Bytes on their way stand in `<target>.part`: kept while they can be resumed, removed where they are wrong or none.
"""

from __future__ import annotations

__all__ = ["ChecksumError", "DownloadError", "download"]

import contextlib
import errno
import hashlib
import http.client
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.parse import urlsplit

from tqdm.auto import tqdm

try:
    import fcntl
except ImportError:  # Windows has none: two processes that download one file at once end in a checksum error
    fcntl = None  # type: ignore[assignment]

BLOCK_BYTES = 1 << 18
MAX_WAIT_S = 60.0
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}  # worth another try
NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENOENT}  # the last: a file:// mirror


class DownloadError(OSError):
    """A file could not be had; the message is a clause that names the reason of each address."""


class ChecksumError(DownloadError):
    """What was served is not what was asked for; nothing of it was kept."""


class _TryAgainError(Exception):
    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _GiveUpError(Exception):
    """This address will not answer, however often it is asked."""


def download(
    urls: str | Sequence[str],
    target: str | Path,
    md5: str,
    *,
    tries: int = 4,
    timeout_s: float = 30.0,
    wait_s: float = 1.0,
    progress: bool = True,
) -> Path:
    """Download a file of known MD5 into `target`, which is never overwritten.

    Bytes go to `<target>.part`, which a later call resumes by HTTP Range; it is renamed once its MD5 is
    right. `CXR_MIRROR`, a base URL, is tried first, as `<CXR_MIRROR>/<file name>`; an address that serves
    something else is left for the next one.

    Args:
        urls: addresses of the same file, tried in order.
        target: where the file goes; returned as it is where it exists.
        md5: hex digest the file must have.
        tries: attempts per address without a new byte, 1 or more.
        timeout_s: silence after which an attempt counts as failed.
        wait_s: pause after the first failed attempt; doubles with each, up to a minute.
        progress: show a bar (on a terminal).

    Returns:
        The target.

    Raises:
        DownloadError: no address answered, or the folder cannot be written or is too small.
        ChecksumError: ditto, and an address served bytes of another MD5; they are removed.
    """
    target = Path(target)
    problems, kind = [], DownloadError
    for url in _with_mirror([urls] if isinstance(urls, str) else urls, target.name):
        try:
            return _download_from(url, target, md5, tries, timeout_s, wait_s, progress)
        except (_GiveUpError, ChecksumError) as error:
            kind = ChecksumError if isinstance(error, ChecksumError) else kind
            problems.append(f"{_host(url)}: {error}")
        finally:
            _remove_empty(target.with_name(target.name + ".part"))
    raise kind("; ".join(problems))


def _with_mirror(urls: Sequence[str], file_name: str) -> list[str]:
    mirror = os.environ.get("CXR_MIRROR", "").rstrip("/")
    return [f"{mirror}/{file_name}", *urls] if mirror else list(urls)


def _host(url: str) -> str:
    """What a message calls an address: its host, without any password in it."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or url
    except ValueError:
        return url


def _remove_empty(part: Path) -> None:
    """Leave no partial file that holds nothing to resume."""
    with contextlib.suppress(OSError):
        if not part.stat().st_size:
            part.unlink()


def _download_from(
    url: str, target: Path, md5: str, tries: int, timeout_s: float, wait_s: float, progress: bool
) -> Path:
    part = target.with_name(target.name + ".part")
    attempt, furthest = 0, _size(part)
    while not target.exists():
        resumed = _size(part) > 0
        try:
            _fetch(url, part, timeout_s, progress)
            _finish(part, target, md5)
        except _TryAgainError as error:
            attempt = 0 if _size(part) > furthest else attempt + 1  # a slow line that gets on is not a failing one
            furthest = max(furthest, _size(part))
            if attempt >= tries:
                raise _GiveUpError(f"{error}, after {tries} tries") from error
            pause_s = wait_s * 2 ** max(attempt - 1, 0) if error.wait_s is None else error.wait_s
            time.sleep(min(pause_s, MAX_WAIT_S))
        except ChecksumError:
            if not resumed:
                raise  # else the beginning may come from another file: once more, from the start
    return target


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _fetch(url: str, part: Path, timeout_s: float, progress: bool) -> None:
    """Append to `part` what is missing; return when the server says it is whole."""
    offset = _size(part)
    request_headers = {"User-Agent": "cxr-helpers", **({"Range": f"bytes={offset}-"} if offset else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=request_headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:  # nothing is left to send: the checksum decides
            return
        _raise_for_status(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        _raise_for_network(error)
    with response:
        resumes = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        start = offset if resumes else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isascii() and length.isdigit() else None
        with _open_part(part, total, start) as handle:
            if os.fstat(handle.fileno()).st_size != offset:
                raise _TryAgainError("another process is downloading the same file")
            if not resumes:
                handle.truncate(0)  # the server ignored the range and sends everything
            received = start + _copy(response, handle, start, total, progress)
    if total is not None and received < total:
        raise _TryAgainError(f"connection closed after {received} of {total} bytes")


def _raise_for_status(error: urllib.error.HTTPError) -> NoReturn:
    reason = " ".join(f"HTTP {error.code} {error.reason}".split())
    if error.code not in PASSING_STATUS:
        raise _GiveUpError(reason) from error
    retry_after = error.headers.get("Retry-After", "")
    raise _TryAgainError(
        reason, float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    ) from error


def _raise_for_network(error: Exception) -> NoReturn:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        raise _GiveUpError("host not found, is there a network?") from error
    hopeless = isinstance(cause, (ssl.SSLCertVerificationError, http.client.InvalidURL, ValueError, str))
    if hopeless or (isinstance(cause, OSError) and cause.errno in NO_ROUTE):
        raise _GiveUpError(" ".join(str(cause).split())) from error
    raise _TryAgainError(" ".join(str(cause).split()) or type(cause).__name__) from error


def _open_part(part: Path, total: int | None, start: int) -> BinaryIO:
    """Open `part` for appending, for this process alone."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(part.parent).free
        if total is not None and free < total - start:
            raise DownloadError(
                f"{part.parent} has {free / 1e6:.0f} MB free, {(total - start) / 1e6:.0f} MB are needed"
            )
        handle = part.open("ab")
    except OSError as error:
        raise error if isinstance(error, DownloadError) else _unwritable(part, error) from error
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released with the handle
    return handle


def _copy(response: Any, handle: BinaryIO, start: int, total: int | None, progress: bool) -> int:
    """Copy the body and return its length; a broken line only raises `_TryAgainError`."""
    name = Path(handle.name).stem
    received = 0
    with tqdm(
        desc=name, total=total, initial=start, unit="B", unit_scale=True, disable=None if progress else True
    ) as bar:
        while True:
            try:
                block = response.read(BLOCK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise _TryAgainError(f"connection lost ({error or type(error).__name__})") from error
            if not block:
                return received
            try:
                handle.write(block)
            except OSError as error:
                raise _unwritable(Path(handle.name), error) from error
            received += len(block)
            bar.update(len(block))


def _unwritable(part: Path, error: OSError) -> DownloadError:
    return DownloadError(f"{part.parent} cannot be written ({error.strerror})")


def _finish(part: Path, target: Path, md5: str) -> None:
    """Turn a whole `part` into the target, or remove it."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with part.open("r+b") as handle:
            while block := handle.read(BLOCK_BYTES):
                digest.update(block)
            os.fsync(handle.fileno())
        if digest.hexdigest() == md5:
            os.replace(part, target)
            return
        part.unlink()
    except FileNotFoundError as error:
        raise _TryAgainError("another process took the partial file") from error
    raise ChecksumError(f"what was served has MD5 {digest.hexdigest()}, expected {md5}, and was removed")
