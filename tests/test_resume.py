"""Interrupted anywhere, a run goes on to the very weights and history of one that was not."""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import texture_config
from torch import nn

from cxr_helpers.config import PretrainConfig, RuntimeConfig
from cxr_helpers.data import Dataset
from cxr_helpers.locks import LockedError, run_lock
from cxr_helpers.loop import checkpoints
from cxr_helpers.loop.interrupts import StoppedError
from cxr_helpers.methods.methods import METHODS, SimCLR
from cxr_helpers.pretrain import pretrain
from cxr_helpers.runs import Run

pretraining = importlib.import_module("cxr_helpers.pretrain")  # the package's attribute of this name is the function
pytestmark = pytest.mark.usefixtures("tiny_net")
CLOCK = ["images_per_second", "train_seconds", "seconds", "session"]
STEPS = 4


class Drawing(SimCLR):
    """A method that draws from torch's own generator in every step, and counts its steps."""

    at_step: Callable[[int], None]
    steps = 0

    def make_head(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), super().make_head())

    def after_step(self) -> None:
        type(self).steps += 1
        type(self).at_step(self.steps)


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Drawing]]:
    monkeypatch.setitem(METHODS, "simclr", Drawing)
    monkeypatch.setattr(Drawing, "steps", 0)
    monkeypatch.setattr(Drawing, "at_step", lambda step: None, raising=False)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # a program with plans of its own for SIGTERM
    yield Drawing
    signal.signal(signal.SIGTERM, before)


def config(**changes: Any) -> PretrainConfig:
    return texture_config(batch_size=10, epochs=3, **changes)


def elsewhere(runtime: RuntimeConfig) -> RuntimeConfig:
    return replace(runtime, results=f"{runtime.results}-2")


def must_be_equal(a: Run, b: Run) -> None:
    left, right = (dict(run.backbone().net.state_dict()) for run in (a, b))
    assert all(torch.equal(left[name], right[name]) for name in left | right)
    histories = [run.history.drop(columns=CLOCK) for run in (a, b)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert {p.name for p in a.path.iterdir()} == {p.name for p in b.path.iterdir()}


@pytest.mark.parametrize(
    ("step", "number"),
    [(1, signal.SIGINT), (STEPS + 2, signal.SIGTERM), (2 * STEPS, signal.SIGINT), (3 * STEPS - 1, signal.SIGTERM)],
)
def test_a_signal_saves_at_the_next_step_and_the_run_goes_on_from_there(
    step: int, number: signal.Signals, drawing: type[Drawing], textures: Dataset, runtime: RuntimeConfig
) -> None:
    whole = pretrain(config(), textures, runtime)
    drawing.steps = 0
    drawing.at_step = lambda done: signal.raise_signal(number) if done == step else None
    with pytest.raises(StoppedError, match=f"stopped by {number.name} after .* all of it is kept") as caught:
        pretrain(config(), textures, elsewhere(runtime))
    assert drawing.steps == step and caught.value.status == 128 + number
    resumed = pretrain(config(), textures, elsewhere(runtime))
    assert drawing.steps == 3 * STEPS  # none was done twice
    must_be_equal(whole, resumed)
    assert resumed.status == "resumed" and resumed.environment["sessions"] == 2


def test_a_signal_after_the_last_step_comes_when_everything_is_written(
    drawing: type[Drawing], textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pretraining.write_bytes

    def write(path: Path, content: bytes) -> None:
        signal.raise_signal(signal.SIGINT)
        real(path, content)

    monkeypatch.setattr(pretraining, "write_bytes", write)
    with pytest.raises(StoppedError, match="had just been trained to its end"):
        pretrain(config(), textures, runtime)
    assert pretrain(config(), textures, runtime).status == "loaded"


def test_a_signal_does_not_wait_for_the_probes(
    drawing: type[Drawing], textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(config(), textures, runtime)
    real = pretraining.validate

    def interrupted(*arguments: Any, **named: Any) -> Any:
        real(*arguments, **named)  # moves what it may move
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("waited")

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "validate", interrupted)
        with pytest.raises(StoppedError, match="after step 4 of 4 in epoch 1; all of it is kept"):
            pretrain(config(), textures, elsewhere(runtime))
    drawing.steps = 0
    must_be_equal(whole, pretrain(config(), textures, elsewhere(runtime)))
    assert drawing.steps == 2 * STEPS


def test_a_long_epoch_is_saved_on_the_way(
    drawing: type[Drawing], textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(config(), textures, runtime)
    monkeypatch.setattr(checkpoints, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "MOST_SHARE", 1e9)

    def die(done: int) -> None:
        if done == STEPS + 3:
            raise MemoryError  # what a kill leaves: no chance to save

    drawing.steps, drawing.at_step = 0, die
    with pytest.raises(MemoryError):
        pretrain(config(), textures, elsewhere(runtime))
    drawing.at_step = lambda done: None
    resumed = pretrain(config(), textures, elsewhere(runtime))
    assert drawing.steps == 3 * STEPS + 1  # only the step that died was done again
    must_be_equal(whole, resumed)


def test_a_second_signal_waits_for_nothing(drawing: type[Drawing], textures: Dataset, runtime: RuntimeConfig) -> None:
    def twice(done: int) -> None:
        if done == STEPS + 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    drawing.at_step = twice
    with pytest.raises(StoppedError, match="after epoch 1; all of it is kept"):
        pretrain(config(), textures, runtime)
    assert drawing.steps == STEPS + 1


def test_in_a_thread_a_run_needs_no_signals(textures: Dataset, runtime: RuntimeConfig) -> None:
    done: list[Run] = []
    thread = threading.Thread(target=lambda: done.append(pretrain(config(), textures, runtime)))
    thread.start()
    thread.join()
    assert done[0].status == "trained"


def test_a_checkpoint_of_the_first_format_goes_on(textures: Dataset, runtime: RuntimeConfig) -> None:
    whole = pretrain(config(), textures, runtime)

    def stop(history: pd.DataFrame) -> None:
        if len(history) == 2:
            raise MemoryError

    with pytest.raises(MemoryError):
        pretrain(config(), textures, elsewhere(runtime), on_epoch=stop)
    (file,) = Path(f"{runtime.results}-2").glob("runs/*/checkpoint.pt")
    found = torch.load(file, weights_only=True)
    new = ("skipped_steps", "collapsed")
    rows = [{key: value for key, value in row.items() if key not in new} for row in found["rows"]]
    assert len(rows) == 2 and set(found) == {"method", "optimizer", "probe", "rows", "sessions", "progress"}
    torch.save({**{key: found[key] for key in ("method", "optimizer", "probe", "sessions")}, "rows": rows}, file)
    (file.parent / "checkpoint.previous.pt").unlink(missing_ok=True)
    (file.parent / "history.csv").unlink()
    resumed = pretrain(config(), textures, elsewhere(runtime))
    left, right = (run.history.drop(columns=[*CLOCK, *new]) for run in (whole, resumed))
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    assert list(resumed.history["session"]) == [1, 1, 2]
    weights = [dict(run.backbone().net.state_dict()) for run in (whole, resumed)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_run_that_another_process_trains_is_refused_and_one_it_has_finished_is_loaded(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = pretrain(config(), textures, runtime)
    with run_lock(finished):  # a finished run is read whoever holds it
        assert pretrain(config(), textures, runtime).status == "loaded"
        with pytest.raises(LockedError, match=f"{finished.id} is being trained by process"):
            pretrain(config(), textures, runtime, fresh=True)
    assert finished.weights.is_file()
    hidden = finished.path / "environment.json"
    content = hidden.read_bytes()
    hidden.unlink()
    real = pretraining.build_training

    def build(*arguments: Any) -> Any:
        hidden.write_bytes(content)  # the other process ends while this one builds
        return real(*arguments)

    monkeypatch.setattr(pretraining, "build_training", build)
    assert pretrain(config(), textures, runtime).status == "loaded"


def test_what_a_kill_after_the_last_record_left_is_removed(textures: Dataset, runtime: RuntimeConfig) -> None:
    run = pretrain(config(), textures, runtime)
    before = {path.name for path in run.path.iterdir()}
    for name in ("checkpoint.pt", "checkpoint.previous.pt", "lock.json"):
        (run.path / name).write_text("")
    assert pretrain(config(), textures, runtime).status == "loaded"
    assert {path.name for path in run.path.iterdir()} == before


def test_no_duration_comes_from_the_time_of_day(
    textures: Dataset, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 - 1000 * next(calls))
    run = pretrain(config(), textures, runtime)
    assert (run.history[["seconds", "train_seconds", "images_per_second"]] > 0).all(axis=None)
    assert run.environment["seconds"] > 0
