"""One process to a run: the others are told who holds it and since when, and a lock left behind is taken over.

The lock is the operating system's (flock on `lock.json` in the run's folder), released however its holder ends; the
file's content only says who that is. Where a file system has no such locks the content decides, and two processes that
start in the same instant are not told apart.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .runs import LOCK, Run, RunWarning, now, writable

__all__ = ["LockedError", "run_lock"]

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # what file systems without flock answer


class LockedError(RuntimeError):
    """Another process is at work on the run; the message says which, where and since when."""


@contextmanager
def run_lock(run: Run, *, doing: str = "trained") -> Iterator[None]:
    """Hold a run, making its folder if need be.

    Args:
        doing: what is being done to the run, for the others to read.
    Raises:
        LockedError: another process holds it. OSError: the results folder cannot be written.
    """
    path = run.path / LOCK
    with writable(run):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _take(path, run.id, doing)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before the release: whoever waits for this file finds it gone and makes another
        os.close(handle)


def _take(path: Path, run_id: str, doing: str) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            held = not _flock(handle) and _alive(_read(handle))  # without locks the file says who has one
        except BlockingIOError:
            held = True
        left = _read(handle)
        if held:
            os.close(handle)
            theirs = left.get("doing", "trained") if left else "held"  # it has not written yet what it does
            raise LockedError(f"run {run_id} is being {theirs} by {_who(left)}: wait for its end, or stop it first")
        if _same_file(handle, path):
            break
        os.close(handle)  # its holder removed it just now
    if left:
        text = f"run {run_id} was left by {_who(left)}, which ended without releasing it{_why(left)}; it is taken over"
        warnings.warn(text, RunWarning, stacklevel=2)
    content = json.dumps(_holder() | {"doing": doing}).encode()
    os.ftruncate(handle, 0)
    os.pwrite(handle, content, 0)
    return handle


def _flock(handle: int) -> bool:
    """Lock an open file without waiting; False where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    return True


def _same_file(handle: int, path: Path) -> bool:
    try:
        there, here = os.stat(path), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


# ---- who


def _boot() -> str:
    """Identifies the time since this machine was started; empty where the system does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "boot": _boot(), "since": now()}


def _read(handle: int) -> dict[str, Any]:
    """Who wrote the file, empty where nobody has (or was killed just before)."""
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _who(holder: Mapping[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"


def _alive(holder: Mapping[str, Any]) -> bool:
    """Whether the process that a file names may still be there; one on another machine may."""
    if not holder:
        return False
    if holder.get("host") != socket.gethostname():
        return True
    if holder.get("boot") != _boot():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except (KeyError, TypeError, ValueError, OSError):  # OSError: it is another user's
        return True
    return True


def _why(holder: Mapping[str, Any]) -> str:
    if holder.get("host") != socket.gethostname():
        return ""
    return " (the machine was restarted since)" if holder.get("boot") != _boot() else " (that process is gone)"
