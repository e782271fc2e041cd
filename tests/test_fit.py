"""`fit` on a toy task: stopped anywhere it goes on to the same bit, and what is kept is whole and finite."""

import importlib
import math
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import Planted, new_run
from lightning_fabric import Fabric
from torch import Tensor, nn

from cxr_helpers.loop import DivergedError, discard_checkpoint, fit
from cxr_helpers.loop.fit import load_checkpoint
from cxr_helpers.runs import Run, StoppedError

fitting = importlib.import_module("cxr_helpers.loop.fit")  # the door's name is the function
EPOCHS, STEPS = 3, 4
SIGNALS = (signal.SIGINT, signal.SIGTERM)
CLOCK = ["seconds", "train_seconds", "session"]


class Toy:
    """A line through noise that is drawn from torch's own generator in every step, as dropout is."""

    steps_per_epoch = STEPS

    def __init__(self, at: Mapping[int, Callable[[], object]] | None = None) -> None:
        self.fabric = Fabric(accelerator="cpu", devices=1)
        self.layer = nn.Linear(3, 1)
        nn.init.ones_(self.layer.weight), nn.init.zeros_(self.layer.bias)
        self.optimizer = torch.optim.SGD(self.layer.parameters(), lr=0.1, momentum=0.9)
        self.stateful = {"layer": self.layer, "optimizer": self.optimizer}
        self.at, self.done = dict(at or {}), []  # type: tuple[dict[int, Callable[[], object]], list[int]]

    def batches(self, epoch: int, first: int) -> range:
        torch.manual_seed(epoch)
        return range(first, STEPS)

    def step(self, batch: int, number: int) -> dict[str, Tensor | float]:
        assert number % STEPS == batch
        self.optimizer.zero_grad()
        loss = (self.layer(torch.randn(8, 3)) - 1).square().mean()
        loss.backward()
        self.optimizer.step()
        self.done.append(number + 1)
        factor = self.at.get(number + 1, lambda: None)()
        return {"loss": loss.detach() * (factor if isinstance(factor, float) else 1.0), "number": float(number)}

    def measure(self, row: Mapping[str, float]) -> dict[str, float]:
        return {"norm": self.layer.weight.norm().item(), "twice": 2 * row["loss"]}


def learnt(task: Toy, run: Run) -> tuple[list[float], pd.DataFrame]:
    return task.layer.weight.flatten().tolist(), run.history.drop(columns=CLOCK)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[list[float], pd.DataFrame]:
    task, run = Toy(), new_run(tmp_path / "whole")
    assert fit(task, run, EPOCHS, progress=False) == 1
    return learnt(task, run)


def must_equal(task: Toy, run: Run, whole: tuple[list[float], pd.DataFrame]) -> None:
    weights, history = learnt(task, run)
    assert weights == whole[0]
    pd.testing.assert_frame_equal(history, whole[1], check_exact=True)


def send(number: int, times: int = 1) -> Callable[[], object]:
    return lambda: [signal.raise_signal(number) for _ in range(times)]


def test_of_tensors_the_mean_and_of_numbers_the_last_goes_into_the_history(whole: Any) -> None:
    history = whole[1]
    assert list(history) == ["epoch", "loss", "number", "norm", "twice"]
    assert list(history["epoch"]) == [1, 2, 3] and list(history["number"]) == [3, 7, 11]
    task = Toy()
    task.batches(0, 0)
    losses = [float(task.step(number, number)["loss"]) for number in range(STEPS)]
    assert (history["loss"][0], history["twice"][0]) == pytest.approx((sum(losses) / 4, sum(losses) / 2), rel=1e-6)


@pytest.mark.parametrize("step", range(1, EPOCHS * STEPS + 1))
def test_a_signal_saves_at_the_next_step_and_the_run_goes_on_from_there(step: int, whole: Any, tmp_path: Path) -> None:
    number, run, before = SIGNALS[step % 2], new_run(tmp_path / "run"), list(map(signal.getsignal, SIGNALS))
    task = Toy({step: send(number)})
    with pytest.raises(StoppedError, match=f"stopped by {number.name} .* is kept") as caught:
        fit(task, run, EPOCHS, progress=False)
    assert task.done[-1] == step and caught.value.status == 128 + number
    resumed = Toy()
    torch.manual_seed(7)
    assert fit(resumed, run, EPOCHS, progress=False) == 2
    assert torch.initial_seed() == 7 and list(map(signal.getsignal, SIGNALS)) == before  # all as it was
    assert resumed.done == list(range(step + 1, EPOCHS * STEPS + 1))  # none twice
    must_equal(resumed, run, whole)


def die() -> None:
    raise MemoryError  # what a kill leaves: no chance to save


def test_a_long_epoch_is_saved_on_the_way(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "LOOK_EVERY", 1)
    monkeypatch.setattr(fitting, "SAVE_SECONDS", 0.0)  # a checkpoint after every step
    run = new_run(tmp_path / "run")
    with pytest.raises(MemoryError):
        fit(Toy({2: die}), run, EPOCHS, progress=False)
    with pytest.raises(StoppedError, match="until step 1 of epoch 2 is kept"):
        fit(Toy({STEPS + 2: send(signal.SIGINT, 2)}), run, EPOCHS, progress=False)  # the second waits for nothing
    with pytest.raises(MemoryError):
        fit(Toy({7: die}), run, EPOCHS, progress=False)
    task = Toy()
    assert fit(task, run, EPOCHS, progress=False) == 4
    assert task.done[0] == 7  # only the step that died is done again
    must_equal(task, run, whole)


@pytest.mark.parametrize(("step", "value"), [(STEPS + 1, math.nan), (2 * STEPS, math.inf)])
def test_a_nan_or_infinity_ends_a_run(step: int, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SAVE_SECONDS", 0.0)
    run, good = new_run(tmp_path / "run"), Toy()
    fit(good, run, 1, progress=False)
    with pytest.raises(DivergedError, match=f"loss became {value} in epoch 2, .*lower --lr.*; .* epoch 1 is kept"):
        fit(Toy({step: lambda: value}), run, EPOCHS, progress=False)
    state = load_checkpoint(run)
    assert state is not None and torch.equal(state["parts"]["layer"]["weight"], good.layer.weight)
    discard_checkpoint(run)
    assert load_checkpoint(run) is None


@pytest.mark.parametrize("damage", ["cut", "code"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", str(tmp_path / "code-was-run"))
    run = new_run(tmp_path / "run")
    fit(Toy(), run, 1, progress=False)
    file = run.path / "checkpoint.pt"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-30])
    else:
        torch.save({"rows": Planted()}, file)
    with pytest.raises(ValueError, match=r"checkpoint\.pt must be a whole .+\(.+\); start again"):
        fit(Toy(), run, EPOCHS, progress=False)
    assert not (tmp_path / "code-was-run").exists()
