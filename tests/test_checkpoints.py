"""Checkpoints: two of them, the latest verified, a damaged one named and passed over, code in one refused."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cxr_helpers.loop import checkpoints
from cxr_helpers.loop.checkpoints import Keeper, discard_checkpoints, load_checkpoint, save_checkpoint
from cxr_helpers.runs import Run, RunWarning


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(path=tmp_path, record={})


def state(number: int) -> dict[str, Any]:
    weights = {"w": torch.full((50,), float(number))}
    return {"method": weights, "optimizer": {}, "probe": {}, "rows": [{"loss": 0.5}] * number, "sessions": 1}


def number_of(found: dict[str, Any] | None) -> int:
    assert found is not None
    assert (found["method"]["w"] == len(found["rows"])).all()
    return len(found["rows"])


def names(run: Run) -> set[str]:
    return {path.name for path in run.path.iterdir()}


def test_the_latest_is_read_back_and_the_one_before_it_kept(run: Run) -> None:
    assert load_checkpoint(run) is None
    save_checkpoint(run, state(1))
    assert names(run) == {"checkpoint.pt"}
    for number in (2, 3):
        save_checkpoint(run, state(number))
        assert number_of(load_checkpoint(run)) == number
    assert names(run) == {"checkpoint.pt", "checkpoint.previous.pt"}
    assert number_of(torch.load(run.path / "checkpoint.previous.pt", weights_only=True)) == 2  # torch's own file
    discard_checkpoints(run)
    assert names(run) == set()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_the_end(content: bytes) -> bytes:
    return content[:-80]


def flip(content: bytes) -> bytes:
    return content.replace(torch.full((50,), 2.0).numpy().tobytes(), torch.full((50,), 4.0).numpy().tobytes())


def empty(content: bytes) -> bytes:
    return b""


def other(content: bytes) -> bytes:
    return pickle.dumps({"method": 1})


DAMAGES: list[Callable[[bytes], bytes]] = [cut, cut_the_end, flip, empty, other]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latest_one_is_named_and_the_one_before_it_taken(damage: Callable[[bytes], bytes], run: Run) -> None:
    for number in (1, 2):
        save_checkpoint(run, state(number))
    latest = run.path / "checkpoint.pt"
    whole = latest.read_bytes()
    latest.write_bytes(damage(whole))
    assert latest.read_bytes() != whole
    with pytest.warns(RunWarning, match=r"checkpoint\.pt must be a checkpoint .* one before it, checkpoint\.previous"):
        assert number_of(load_checkpoint(run)) == 1
    save_checkpoint(run, state(2))  # the damaged one must not take the whole one's place
    latest.unlink()
    assert number_of(load_checkpoint(run)) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_whole_one_a_sentence_names_file_and_way_out(damage: Callable[[bytes], bytes], run: Run) -> None:
    save_checkpoint(run, state(2))
    latest = run.path / "checkpoint.pt"
    latest.write_bytes(damage(latest.read_bytes()))
    with pytest.raises(
        ValueError, match=r"checkpoint\.pt must be a checkpoint of this run \(.*\); start again with --f"
    ):
        load_checkpoint(run)


def test_a_cut_through_the_seal_alone_loses_nothing(run: Run) -> None:
    save_checkpoint(run, state(2))
    latest = run.path / "checkpoint.pt"
    latest.write_bytes(latest.read_bytes()[:-20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number_of(load_checkpoint(run)) == 2


class Planted:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (f"{os.environ['PLANTED']}/code-was-run",)


def test_code_in_a_checkpoint_is_refused_and_not_run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLANTED", str(tmp_path))
    save_checkpoint(run, state(1))
    save_checkpoint(run, {**state(2), "rows": [Planted()]})  # sealed as it should be: not damage, so no fallback
    with pytest.raises(ValueError, match=r"holds more than tensors and plain values.*start again with --fresh"):
        load_checkpoint(run)
    assert names(run) == {"checkpoint.pt", "checkpoint.previous.pt"}


def test_a_file_that_lacks_what_a_run_needs_is_refused(run: Run) -> None:
    save_checkpoint(run, {"method": {}, "rows": []})
    with pytest.raises(ValueError, match="lacks optimizer, probe, sessions"):
        load_checkpoint(run)


def test_the_one_before_stays_until_the_new_one_is_verified(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(run, state(1))

    def lose_a_byte(file: Path, size: int, digest: str) -> None:
        content = bytearray(file.read_bytes())
        content[size // 2] ^= 1
        file.write_bytes(content)
        verify(file, size, digest)

    verify = checkpoints._verify
    monkeypatch.setattr(checkpoints, "_verify", lose_a_byte)
    with pytest.raises(OSError, match=r"checkpoint\.pt could not be written: it does not read back as it was written"):
        save_checkpoint(run, state(2))
    assert names(run) == {"checkpoint.previous.pt"}
    assert number_of(load_checkpoint(run)) == 1


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: self.now)


def test_checkpoints_take_at_most_a_twentieth_of_the_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def take_two_seconds(run: Run, state: Any) -> None:
        clock.now += 2

    monkeypatch.setattr(checkpoints, "save_checkpoint", take_two_seconds)
    keeper = Keeper(run)
    assert keeper.due(within_epoch=False)  # the first, whose cost nobody knows
    keeper.save({}, (1, 0))
    clock.now += 39
    assert not keeper.due(within_epoch=False)
    clock.now += 1
    assert keeper.due(within_epoch=False) and not keeper.due(within_epoch=True)
    clock.now += 560
    assert keeper.due(within_epoch=True)


def test_a_process_that_does_not_write_keeps_time_with_the_one_that_does(run: Run) -> None:
    keeper = Keeper(run, writes=False)
    assert keeper.kept_text() == "nothing was kept"
    keeper.save(state(1), (3, 0))
    assert names(run) == set() and keeper.kept_text() == "the checkpoint of epoch 3 is kept"
    keeper.save(state(1), (3, 7))
    assert keeper.kept_text() == "the checkpoint of step 7 of epoch 4 is kept"
