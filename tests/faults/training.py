"""Killed, stopped, starved and doubled trainings: each ends with the weights and history of an undisturbed one."""

from __future__ import annotations

import atexit
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .registry import fault

HERE = Path(__file__).resolve().parent
PART = "training"
CLOCK = ["images_per_second", "train_seconds", "seconds", "session"]  # of a history, what may differ
EPOCHS, STEPS = 4, 4
POINT_CALLS = {  # where a run is killed, and how often an undisturbed one comes by
    "checkpoint": EPOCHS,
    "step": EPOCHS * STEPS,
    "probe": EPOCHS,
    "start": 1,
    "table": EPOCHS,
    "weights": 1,
    "record": 1,
    "clean-up": 1,
    "metrics": 1,
}


class Trainee:
    """The process that forks runs of `train.py` (see `trainee`)."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "trainee.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        atexit.register(self.process.kill)
        self.asked = False

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        assert not self.asked, "the answer before was not waited for"
        self.asked = True
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the trainee has died"
        self.asked = False
        return json.loads(answer)


@cache
def _trainee() -> Trainee:
    return Trainee()


def trainee() -> Trainee:
    """The one that serves all tries; another after a try that was given up for its time."""
    if _trainee().asked:
        _trainee().process.kill()  # and its runs with it
        _trainee.cache_clear()
    return _trainee()


def arguments(folder: Path) -> list[str]:
    """Of a run that takes a second; the same run in every folder."""
    return [
        *("--dataset", "pneumoniamnist", "--size", "64", "--root", str(folder / "data")),
        *("--results", str(folder / "results"), "--epochs", str(EPOCHS), "--batch-size", "10", "--warmup-epochs", "1"),
        *("--options", "hidden_dim", "16", "output_dim", "8", "--device", "cpu", "--threads", "1", "--no-progress"),
        *("--precision", "32-true", "--probe.folds", "2", "--probe.cs", "0.01", "1", "--probe.sgd-epochs", "2"),
    ]


def write_data(folder: Path) -> None:
    """Forty noisy squares, half of them bright, as a MedMNIST file."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 10 * STEPS), ("val", 16), ("test", 16)):
        labels = np.arange(count) % 2
        images = rng.integers(0, 160, (count, 64, 64)) + 40 * labels[:, None, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None].astype(np.uint8)}
    (folder / "data").mkdir(exist_ok=True)
    np.savez(folder / "data" / "pneumoniamnist_64.npz", **arrays)


class Process:
    """One run of the command, under way."""

    def __init__(self, folder: Path, *, argv: list[str] | None = None, **request: Any):
        if not (folder / "data").exists():
            write_data(folder)
        self.by = trainee()
        self.log = folder / f"log-{time.monotonic_ns()}.txt"
        given = {"argv": argv or arguments(folder), "log": str(self.log), "folder": str(folder)}
        self.pid = self.by.ask(**given, **request)["pid"]

    def wait(self) -> tuple[int, str]:
        """Exit status (minus the signal that ended it), and what it printed."""
        return self.by.ask(wait=self.pid)["status"], self.log.read_text()


def train(folder: Path, **request: Any) -> tuple[int, str]:
    return Process(folder, **request).wait()


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "results" / "runs").iterdir()
    return found


@cache
def reference() -> Path:
    """A run that nothing disturbed."""
    folder = Path(tempfile.mkdtemp(prefix="fault-reference-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    status, said = train(folder)
    assert status == 0, said
    return run_folder(folder)


def must_equal_the_reference(folder: Path) -> None:
    """Same files, bit-identical weights and predictions, the same history and metrics."""
    whole, run = reference(), run_folder(folder)
    assert run.name == whole.name
    differing = {p.name for p in run.iterdir()} ^ {p.name for p in whole.iterdir()}
    assert not differing, f"files left over or missing: {sorted(differing)}"
    for name in ("backbone.safetensors", "predictions_val.csv.gz", "metrics.json", "config.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"
    histories = [pd.read_csv(path / "history.csv").drop(columns=CLOCK) for path in (run, whole)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def finish(folder: Path, **request: Any) -> str:
    """Run the same command to its end and compare; returns what it printed."""
    status, said = train(folder, **request)
    assert status == 0, said
    must_equal_the_reference(folder)
    return said


def kill_plan(rng: np.random.Generator, seed: int, **more: Any) -> dict[str, Any]:
    """Where in its course a run is killed: every kind of moment in turn, the rest by chance."""
    point = list(POINT_CALLS)[seed % len(POINT_CALLS)]
    call = int(rng.integers(POINT_CALLS[point])) + 1
    often = bool(seed // 2 % 2) or point == "checkpoint"  # else a matter of what one costs
    return {
        "kill": {"point": point, "call": call, "delay": float(10 ** rng.uniform(-5, -2.5)), **more},
        "checkpoint_every_step": often,
    }


# ---- kills and signals


@fault("SIGKILL in a step, a probe, or a write of checkpoint, table or record", category=PART, tries=20)
def killed(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for again in range(1 + seed % 3):  # up to three kills before it may finish
        status, said = train(folder, **kill_plan(rng, seed))
        assert status == -signal.SIGKILL or (again and status == 0), said  # what is left may not come by that point
    finish(folder)


def stop_at_random(folder: Path, seed: int, number: signal.Signals) -> None:
    rng = np.random.default_rng(seed)
    status, said = train(folder, **kill_plan(rng, seed, number=number))
    assert status == 128 + number, said
    last = said.splitlines()[-1]
    found = re.fullmatch(rf"train\.py: stopped by {number.name} .*; go on with: python train\.py (.*)", last)
    assert found and "Traceback" not in said, said
    finish(folder, argv=shlex.split(found[1]))


@fault("SIGTERM at a random moment, then the command it printed", category=PART, tries=10)
def terminated(folder: Path, seed: int) -> None:
    stop_at_random(folder, seed, signal.SIGTERM)


@fault("SIGINT at a random moment, then the command it printed", category=PART, tries=10)
def interrupted(folder: Path, seed: int) -> None:
    stop_at_random(folder, 3 + seed, signal.SIGINT)


# ---- disks


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[bool]:
    """A file system of its own of `size` bytes; False where this process may not mount one."""
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
    )
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def said_what_failed(status: int, said: str) -> None:
    assert status == 1 and "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("train.py: ")]
    assert re.search(r"could not be written: (No space left on device|File too large)|must be writable", line), line


@fault("a disk that fills up at a random byte (a small tmpfs)", category=PART, tries=10)
def disk_full(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, most = 2**20, 2**19  # bytes of the disk, and left on it: too few for the run's checkpoint and the next
    with small_disk(folder / "results", size) as mounted:
        request: dict[str, Any] = {}
        ballast = folder / "results" / "ballast"
        if mounted:
            ballast.write_bytes(bytes(size - int(rng.integers(most))))
        else:
            request["most_bytes"] = int(rng.integers(most // 4))  # of one file
        said_what_failed(*train(folder, **request))
        ballast.unlink(missing_ok=True)
        finish(folder)


# ---- processes


@fault("four processes that read test at once: each reading is counted", category=PART, tries=5)
def read_together(folder: Path, seed: int) -> None:
    finish(folder)
    waiting = {k: [*arguments(folder), "--test", "--probe.knn-k", str(k)] for k in (3, 4, 5, 6)}
    while waiting:
        under_way = {k: Process(folder, argv=argv) for k, argv in waiting.items()}
        ends = {k: process.wait() for k, process in under_way.items()}
        for status, said in ends.values():
            assert status == 0 or re.search(" is being (probed|held) by (another )?process", said), said
        assert any(status == 0 for status, _ in ends.values()), "nobody got on"
        waiting = {k: argv for k, argv in waiting.items() if ends[k][0]}
    reads = json.loads((run_folder(folder) / "metrics.json").read_text())["test_reads"]
    assert reads == 4, f"four processes read test, {reads} readings are counted"
