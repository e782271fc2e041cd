"""Locks of runs: one process works, the others are told who, and what a dead one left is taken over."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cxr_helpers import locks
from cxr_helpers.locks import LockedError, run_lock
from cxr_helpers.runs import Run, RunWarning

HOLD = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(handle, fcntl.LOCK_EX)
os.write(handle, sys.argv[2].encode())
print("held", flush=True)
time.sleep(60)
"""
OTHER = {"host": "elsewhere", "pid": 7, "boot": "b", "since": "2026-01-01T00:00:00+00:00"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(path=tmp_path / "results" / "runs" / "toy-0", record={})


@contextmanager
def held_elsewhere(path: Path, content: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLD, str(path), content]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_says_who_holds_it_and_is_gone_afterwards(run: Run) -> None:
    with run_lock(run):
        found = json.loads((run.path / "lock.json").read_text())
        assert (found["host"], found["pid"]) == (socket.gethostname(), os.getpid()) and found["since"].startswith("20")
    assert list(run.path.iterdir()) == []
    told = f"toy-0 is being trained by process {os.getpid()} on .* since"
    with run_lock(run), pytest.raises(LockedError, match=told), run_lock(run):
        raise AssertionError("held twice")


def test_a_lock_is_released_by_an_error_and_an_interruption(run: Run) -> None:
    for error in (ValueError(), KeyboardInterrupt()):
        with pytest.raises(type(error)), run_lock(run):
            raise error
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with run_lock(run):
            pass


def test_the_second_process_is_told_and_takes_over_once_the_first_is_killed(run: Run) -> None:
    lock = run.path / "lock.json"
    with held_elsewhere(lock, json.dumps(OTHER)) as process:
        with pytest.raises(LockedError, match="process 7 on elsewhere since 2026-01-01T00:00:00"), run_lock(run):
            pass
        assert json.loads(lock.read_text()) == OTHER  # as it was
        process.send_signal(signal.SIGKILL)
        process.wait()
        with (
            pytest.warns(RunWarning, match="toy-0 was left by process 7 on elsewhere .* it is taken over"),
            run_lock(run),
        ):
            assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


@pytest.mark.parametrize(
    ("content", "by"),
    [
        *((content, "held by another process: wait") for content in ("", "{", "[1]")),
        ('{"pid": "x"}', "trained by process x on"),
    ],
)
def test_a_holder_that_has_not_said_who_it_is_still_holds(content: str, by: str, run: Run) -> None:
    held, refused = held_elsewhere(run.path / "lock.json", content), f"toy-0 is being {by}"
    with held, pytest.raises(LockedError, match=refused), run_lock(run):
        pass


def test_a_lock_file_that_was_removed_meanwhile_is_made_anew(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = fcntl.flock, []

    def flock(handle: int, how: int) -> None:
        real(handle, how)
        calls.append(handle)
        if len(calls) == 1:
            (run.path / "lock.json").unlink()  # its holder let go between our opening and our locking

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_lock(run):
        assert len(calls) == 2 and (run.path / "lock.json").is_file()


def nobody() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_without_locks_of_the_system_the_file_decides(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_lock(run), pytest.raises(LockedError, match=f"by process {os.getpid()} on"), run_lock(run):
        pass
    here = {**OTHER, "host": socket.gethostname(), "boot": locks._boot()}
    lock = run.path / "lock.json"
    for left, reason in (
        ({**here, "pid": nobody()}, r"\(that process is gone\)"),
        ({**here, "pid": os.getpid(), "boot": "an older one"}, r"\(the machine was restarted since\)"),
    ):
        lock.write_text(json.dumps(left))
        with pytest.warns(RunWarning, match=f"without releasing it {reason}; it is taken over"), run_lock(run):
            pass
    lock.write_text(json.dumps(OTHER))  # who knows what lives on another machine
    with pytest.raises(LockedError, match="process 7 on elsewhere"), run_lock(run):
        pass


def test_a_results_folder_that_cannot_be_written_is_one_sentence(run: Run) -> None:
    run.path.parent.parent.write_text("a file in its place")
    with pytest.raises(OSError, match=r"results folder must be writable, got .*results \("), run_lock(run):
        pass
