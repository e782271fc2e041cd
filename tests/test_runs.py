"""Run folders: whole files or none, records that are read back, one process at work in each."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_helpers import environment
from cxr_helpers.config import RuntimeConfig
from cxr_helpers.runs import LockedError, Run, results_root, run_lock, start_run
from cxr_helpers.writing import write_json


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "record"
    target.write_text("old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="record could not be written: No space left on device; make room there, then"):
        write_json(target, {"a": 1})
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("record", "old")]


def test_a_run_is_shown_in_a_line(tmp_path: Path) -> None:
    shown = repr(Run(path=tmp_path / "runs" / "a", record={"dataset": "phantom"}))
    assert "phantom" not in shown and "loaded" in shown


def test_the_results_folder_is_the_argument_else_the_variable_else_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXR_RESULTS", raising=False)
    assert results_root(RuntimeConfig()) == Path("results")
    monkeypatch.setenv("CXR_RESULTS", "/elsewhere")
    assert results_root(RuntimeConfig()) == Path("/elsewhere")
    assert results_root(RuntimeConfig(results="mine")) == Path("mine")


def test_the_record_knows_a_changed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cxr_helpers" / "environment.py"
    file.parent.mkdir()
    file.write_text("a = 1\n")
    monkeypatch.setattr(environment, "__file__", str(file))
    assert environment.commit_record() == {"commit": "unknown", "dirty": False}
    for words in ("init -q", "add :/", "-c user.name=a -c user.email=a@example.org commit -qm a"):
        environment._git("-C", "..", *words.split())
    assert len(environment.commit_record()["commit"]) == 40 and not environment.commit_record()["dirty"]
    file.write_text("a = 2\n")
    assert environment.commit_record()["dirty"] is True


HOLD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
open(sys.argv[1], "w").write(sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""
OTHER = {"host": "elsewhere", "pid": 7, "since": "2026-01-01T00:00:00+00:00", "doing": "trained"}


def test_the_second_process_is_told_and_takes_over_once_the_first_is_killed(tmp_path: Path) -> None:
    run = Run(path=tmp_path / "runs" / "toy-0", record={"method": "simclr"})
    start_run(run, fresh=False)
    command = [sys.executable, "-c", HOLD, str(run.path / "lock.json"), json.dumps(OTHER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        told = "trained by process 7 on elsewhere since 2026-01-01T00:00:00.*: wait for its end, or stop it first"
        with pytest.raises(LockedError, match=told), run_lock(run):
            raise AssertionError("held twice")
        process.kill()
        process.wait()
    with run_lock(run):
        assert json.loads((run.path / "lock.json").read_text())["pid"] == os.getpid()
    assert not (run.path / "lock.json").exists()


def test_a_results_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file in its place")
    run = Run(path=tmp_path / "results" / "runs" / "toy-0", record={})
    with pytest.raises(OSError, match=r"^results folder must be writable, got .*results \("), run_lock(run):
        raise AssertionError("held in a file")
