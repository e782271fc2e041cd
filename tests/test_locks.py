"""Locks of runs: one process works, the others are told who, and the system lets go of what a killed one held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cxr_helpers.runs import LockedError, Run, run_lock

HOLD = """
import pathlib, sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
pathlib.Path(sys.argv[1]).write_text(sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""
OTHER = {"host": "elsewhere", "pid": 7, "since": "2026-01-01T00:00:00+00:00", "doing": "trained"}


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


def test_a_lock_says_who_holds_it_and_is_gone_after_an_interruption(run: Run) -> None:
    told = f"toy-0 is being probed by process {os.getpid()} on .* since 20.*: wait for its end, or stop it first"
    with pytest.raises(KeyboardInterrupt), run_lock(run, doing="probed"):
        with pytest.raises(LockedError, match=told), run_lock(run):
            raise AssertionError("held twice")
        raise KeyboardInterrupt
    assert list(run.path.iterdir()) == []


def test_the_second_process_is_told_and_takes_over_once_the_first_is_killed(run: Run) -> None:
    lock = run.path / "lock.json"
    with held_elsewhere(lock, json.dumps(OTHER)) as process:
        told = "trained by process 7 on elsewhere since 2026-01-01T00:00:00"
        with pytest.raises(LockedError, match=told), run_lock(run):
            raise AssertionError("held twice")
        assert json.loads(lock.read_text()) == OTHER  # as it was
        process.kill()
        process.wait()
        with run_lock(run):
            assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_a_results_folder_that_cannot_be_written_is_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file in its place")
    with pytest.raises(OSError, match=r"^results folder must be writable, got .*results \("), run_lock(run):
        raise AssertionError("held in a file")
