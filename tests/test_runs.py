"""Run folders: whole files or none, the configuration that names them, records that are read back."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cxr_helpers import environment, runs
from cxr_helpers.config import RuntimeConfig
from cxr_helpers.environment import environment_record
from cxr_helpers.runs import Run, results_root, start_run
from cxr_helpers.writing import write_json, write_table, write_tensors

RECORD = {"method": "simclr", "options": {"temperature": 0.2}, "cs": (0.1, 1.0), "seed": 0}


def new_run(root: Path, record: Mapping[str, Any] = RECORD) -> Run:
    run = Run(path=root / "runs" / "toy-0", record=record)
    start_run(run, fresh=False)
    return run


WRITERS = {
    "json": lambda path: write_json(path, {"a": 1}),
    "table": lambda path: write_table(path, pd.DataFrame({"a": [1]})),
    "tensors": lambda path: write_tensors(path, {"a": torch.zeros(3)}),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_no_part_of_the_new(
    kind: str, failing: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise error

    target = tmp_path / "record"
    target.write_text("old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)):
        WRITERS[kind](target)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("record", "old")]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1.5, "a": [1, None], "c": RECORD})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["b", "a", "c"]
    write_tensors(tmp_path / "a.safetensors", {"x": torch.arange(6).reshape(2, 3).T}, {"note": "here"})
    assert torch.equal(load_file(tmp_path / "a.safetensors")["x"], torch.arange(6).reshape(2, 3).T)


def test_a_run_reads_its_records_back(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert run.history.empty and run.metrics == {} and run.environment == {} and not run.finished
    table = pd.DataFrame({"epoch": [1, 2], "loss": [0.123456789, float("nan")]})
    write_table(run.path / "history.csv", table)
    write_json(run.path / "metrics.json", {"linear": {"val": {"auc": 0.5}}})
    write_json(run.path / "environment.json", {"finished": "2026-01-01T00:00:00+00:00"})
    write_table(
        run.path / "predictions_val.csv.gz", pd.DataFrame({"group": ["007", "8"], "score/pneumonia": [0.1, 0.9]})
    )
    pd.testing.assert_frame_equal(run.history, table, rtol=1e-6)
    assert run.metrics["linear"]["val"]["auc"] == 0.5
    assert run.finished and run.id == "toy-0"
    assert list(run.predictions("val")["group"]) == ["007", "8"]


def test_a_fresh_start_that_is_killed_leaves_no_run_that_counts_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)
    for name in ("environment.json", "metrics.json"):
        write_json(run.path / name, {"finished": "2026-01-01T00:00:00+00:00", "test_reads": 2})

    def die(paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "_remove", die)
    with pytest.raises(KeyboardInterrupt):
        start_run(run, fresh=True)
    assert not run.finished and run.metrics == {"test_reads": 2}


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    (run.path / "checkpoint.pt.tmp").write_bytes(b"half")
    start_run(run, fresh=False)
    assert [p.name for p in run.path.iterdir()] == ["config.json"]


def test_a_full_disk_names_the_file_the_reason_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.json could not be written: No space left .* MB free there\); make room"):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_start_removes_what_the_folder_held_and_only_that(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    write_json(run.path / "metrics.json", {"a": 1})
    neighbour = tmp_path / "runs" / "toy-1"
    neighbour.mkdir()
    start_run(run, fresh=False)
    assert run.metrics == {"a": 1}
    start_run(run, fresh=True)
    assert [p.name for p in run.path.iterdir()] == ["config.json"] and neighbour.is_dir()


@pytest.mark.parametrize("place", ["results", "results/runs"])
def test_a_results_folder_that_cannot_be_made_is_one_clear_sentence(place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file in its place")
    with pytest.raises(OSError, match=r"results folder must be writable, got .*results \(") as caught:
        new_run(tmp_path / "results")
    assert "\n" not in str(caught.value)
    assert (tmp_path / place).read_text() == "a file in its place"


def test_a_run_whose_weights_are_not_here_names_the_command_that_makes_them(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    write_json(run.path / "environment.json", {"command": "python train.py --dataset toy --seed 0"})
    with pytest.raises(FileNotFoundError, match=r"toy-0 has its records .* python train.py --dataset toy --seed 0 --f"):
        run.backbone()


def test_the_results_folder_is_the_argument_else_the_variable_else_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXR_RESULTS", raising=False)
    assert results_root(RuntimeConfig()) == Path("results")
    monkeypatch.setenv("CXR_RESULTS", "/elsewhere")
    assert results_root(RuntimeConfig()) == Path("/elsewhere")
    assert results_root(RuntimeConfig(results="mine")) == Path("mine")


def test_the_environment_record_says_what_a_reader_needs() -> None:
    record = environment_record(torch.device("cpu"), "32-true")
    assert record["torch"] == torch.__version__ and record["threads"] == torch.get_num_threads()
    assert record["device"] == "cpu" and record["device_name"] and record["precision"] == "32-true"
    assert record["started"].endswith("+00:00")
    json.dumps(record)


def test_a_machine_without_proc_cpuinfo_still_has_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    assert environment_record(torch.device("cpu"), "32-true")["device_name"]


def test_the_record_tells_a_changed_package_from_a_committed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "cxr_helpers"
    package.mkdir()
    (package / "runs.py").write_text("a = 1\n")
    (tmp_path / "notes.md").write_text("a\n")
    monkeypatch.setattr(environment, "__file__", str(package / "runs.py"))
    assert environment.commit_record() == {"commit": "unknown", "dirty": False}
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "a"],
    ):
        environment._git(*["-C", str(tmp_path), *arguments])
    assert len(environment.commit_record()["commit"]) == 40
    (tmp_path / "notes.md").write_text("b\n")
    assert environment.commit_record()["dirty"] is False
    (package / "runs.py").write_text("a = 2\n")
    assert environment.commit_record()["dirty"] is True
