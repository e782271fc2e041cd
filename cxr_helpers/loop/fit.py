"""The loop: any `Task` is trained epoch by epoch, saved, stopped by a signal, and gone on with to the same bit.

It knows no method, no data set and no loss. Until a run is finished its folder holds

    checkpoint.pt   tensors and plain values: what the steps change, the rows of the history, where the epoch stands
    history.csv     one row per finished epoch: the means of what its steps returned, and what was measured after it
"""

from __future__ import annotations

import io
import math
import pickle
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm.auto import tqdm

from ..runs import Run, StoppedError
from ..writing import write_bytes, write_table
from .signals import StopSignals
from .step import random_state, set_random_state

__all__ = ["DivergedError", "Task", "discard_checkpoint", "fit", "load_checkpoint"]

CHECKPOINT = "checkpoint.pt"
ADVICE = "try a lower --lr, more --warmup-epochs or --precision 32-true"
KEPT = ("rows", "session", "step", "sums", "last", "seconds", "random")  # of a `_Course`, in a checkpoint
MOST_SHARE = 0.05  # of the time may go into checkpoints: after one that took 1 s, the next comes 20 s later
MOST_SECONDS = 600.0  # of training that a kill may cost where an epoch is longer than that
LOOK_EVERY = 10  # steps: so often the host waits for the device, to see whether what it sums up is still a number
BAR_SECONDS = 0.5  # how often the bar's figures are refreshed; each refresh waits for the device once


class DivergedError(RuntimeError):
    """What a run computes stopped being a number; the message says what, where, and what to try."""


class Task(Protocol):
    """What `fit` trains. All that is random in it comes from seed, epoch and step, or from torch's own generators."""

    @property
    def fabric(self) -> Fabric: ...  # device, precision and processes
    @property
    def steps_per_epoch(self) -> int: ...
    @property
    def stateful(self) -> Mapping[str, Any]: ...  # by name, all that steps change, with state_dict and load_state_dict

    def batches(self, epoch: int, first: int) -> Iterable[Any]:
        """The batches of an epoch from step `first` on; the call itself seeds torch's generators for the epoch."""

    def step(self, batch: Any, number: int) -> Mapping[str, Tensor | float]:
        """One update, `number` counted from 0 over all epochs, and what goes into the history of it.

        Of tensors that is the mean over the epoch, and they must stay finite (the loss, the norm of the gradient); of
        plain numbers it is the last.
        """

    def measure(self, row: Mapping[str, float]) -> Mapping[str, float]:
        """What else goes into an epoch's row of the history; changes nothing, and is asked of one process alone."""


def fit(
    task: Task,
    run: Run,
    epochs: int,
    *,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
    progress: bool = True,
) -> int:
    """Train a task until its run has that many epochs, from the start or from the run's checkpoint.

    Args:
        on_epoch: called with the history after every epoch.
        progress: show a bar with live figures.
    Returns:
        In how many sittings it was trained. The last checkpoint stays until `discard_checkpoint`.
    Raises:
        DivergedError: a number is not finite any more; the last good checkpoint is kept.
        StoppedError: a signal came; the state is saved, and the same call goes on from there.
        ValueError: the checkpoint cannot be read. OSError: the run's folder cannot be written.
    """
    course, device, steps = _Course(task=task, run=run), task.fabric.device, task.steps_per_epoch
    course.restore()
    done, hidden = len(course.rows) * steps + course.step, not (progress and course.writes)
    with (
        StopSignals() as stop,
        tqdm(total=epochs * steps, initial=done, unit="step", smoothing=0.05, disable=hidden) as bar,
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        try:
            while len(course.rows) < epochs:
                bar.set_description(f"{run.id} epoch {len(course.rows) + 1}/{epochs}")
                course.train(bar, stop)
                course.measure(stop)
                course.show(on_epoch, stop)
        except StoppedError as error:
            raise StoppedError(error.signum, f"and {course.kept_text()}") from None
        except DivergedError as error:
            raise DivergedError(f"{error}: {ADVICE}; {course.kept_text()}") from None
    return course.session


@dataclass(kw_only=True)
class _Course:
    """Where a run stands: its finished epochs, and what the steps of the next one came to so far."""

    task: Task
    run: Run
    rows: list[dict[str, float]] = field(default_factory=list)
    session: int = 1  # from 1, counting those that left a checkpoint
    step: int = 0  # done of the epoch
    sums: dict[str, Tensor] = field(default_factory=dict)  # over the epoch's steps, float32 on the device
    last: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0  # that the epoch's steps took
    random: list[Tensor] = field(default_factory=list)  # torch's generators where an epoch was left in its middle
    saved: float = field(default_factory=lambda: time.perf_counter())  # on a clock that is never set back
    cost: float = 0.0  # seconds that the last checkpoint took
    at: tuple[int, int] = (0, 0)  # epochs and steps in the last checkpoint

    @property
    def writes(self) -> bool:
        """Whether this process is the one that measures and writes."""
        return self.task.fabric.is_global_zero

    def train(self, bar: tqdm, stop: StopSignals) -> None:
        """The epoch's steps, or those that are left of it."""
        task, shown = self.task, time.perf_counter()
        begun, steps, batches = shown, task.steps_per_epoch, task.batches(len(self.rows), self.step)
        if self.random:
            set_random_state(self.random, task.fabric.device)
        for batch in batches:
            self._count(task.step(batch, len(self.rows) * steps + self.step))
            ends, asked = self.step == steps, stop.asked(task.fabric)
            looks = ends or asked or self.step % LOOK_EVERY == 0
            means = self._finite_means() if looks else {}
            now = time.perf_counter()
            self.seconds, begun = self.seconds + now - begun, now
            if ends or now - shown > BAR_SECONDS:
                bar.set_postfix({k: f"{v:.3f}" for k, v in (means or self._means()).items()}, refresh=False)
                shown = now
            bar.update()
            if not ends and (asked or (looks and self._due(MOST_SECONDS))):
                self.save()
            if not ends and asked:
                raise StoppedError(asked)

    def measure(self, stop: StopSignals) -> None:
        """End the epoch: its row is what its steps came to, and what the task measures now."""
        begun, fabric = time.perf_counter(), self.task.fabric
        row = {"epoch": len(self.rows) + 1, **self._means(), **self.last, "train_seconds": self.seconds}
        try:
            with stop.at_once():
                measured = fabric.broadcast(dict(self.task.measure(row)) if self.writes else {})
        except StoppedError:
            self.save()
            raise
        row |= {name: float(value) for name, value in measured.items()}
        row |= {"seconds": self.seconds + time.perf_counter() - begun, "session": self.session}
        self.rows.append(row)
        self.step, self.sums, self.last, self.seconds, self.random = 0, {}, {}, 0.0, []

    def show(self, on_epoch: Callable[[pd.DataFrame], None] | None, stop: StopSignals) -> None:
        """Write the history and show it; save if it is time to, if a signal came, or if showing it failed."""
        history = pd.DataFrame(self.rows)
        if self.writes:
            write_table(self.run.path / "history.csv", history)
        try:
            if on_epoch is not None:
                on_epoch(history)
            if asked := stop.asked(self.task.fabric):
                raise StoppedError(asked)
        except BaseException:
            self.save()
            raise
        if self._due(0.0):
            self.save()

    def save(self) -> None:
        """Write a checkpoint of here, unless it is there already."""
        here, begun = (len(self.rows), self.step), time.perf_counter()
        if here == self.at:
            return
        if self.writes:
            self.random = random_state(self.task.fabric.device) if self.step else []
            state = {name: getattr(self, name) for name in KEPT}
            buffer = io.BytesIO()
            torch.save(state | {"parts": {k: part.state_dict() for k, part in self.task.stateful.items()}}, buffer)
            write_bytes(self.run.path / CHECKPOINT, buffer.getbuffer())
        self.at, self.saved = here, time.perf_counter()
        self.cost = self.saved - begun

    def restore(self) -> None:
        """Go on from the run's checkpoint, if there is one."""
        if (state := load_checkpoint(self.run)) is None:
            return
        for name, part in self.task.stateful.items():
            part.load_state_dict(state["parts"][name])
        for name in KEPT:
            setattr(self, name, state[name])
        self.sums = {name: value.to(self.task.fabric.device) for name, value in self.sums.items()}
        self.session, self.at = self.session + 1, (len(self.rows), self.step)

    def kept_text(self) -> str:
        """What is kept, as the end of a sentence."""
        epochs, step = self.at
        if self.at == (0, 0):
            return "nothing was kept"
        return f"what was learnt until {f'step {step} of epoch {epochs + 1}' if step else f'epoch {epochs}'} is kept"

    def _count(self, terms: Mapping[str, Tensor | float]) -> None:
        for name, value in terms.items():
            if isinstance(value, Tensor):
                self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()
            else:
                self.last[name] = float(value)
        self.step += 1

    def _means(self) -> dict[str, float]:
        return {name: float(value) / self.step for name, value in self.sums.items()}

    def _finite_means(self) -> dict[str, float]:
        """The means so far: what has once been added to a sum and was no number stays there."""
        means = self._means()
        bad = [f"{name} became {value}" for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise DivergedError(f"{', '.join(bad)} in epoch {len(self.rows) + 1}, at step {self.step} or before")
        return means

    def _due(self, least: float) -> bool:
        return time.perf_counter() - self.saved >= max(least, self.cost / MOST_SHARE)


def load_checkpoint(run: Run) -> dict[str, Any] | None:
    """The checkpoint of a run, or None. Only tensors and plain values are read, no code.

    Raises:
        ValueError: the file is damaged, holds code, or is no checkpoint.
    """
    file = run.path / CHECKPOINT
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():  # torch itself does not look at the checksums
                raise ValueError(f"{damaged} is damaged")
        state = torch.load(file, map_location="cpu", weights_only=True)
        if missing := {*KEPT, "parts"} - set(state):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except Exception as error:
        code = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors and plain values" if code else str(error).partition("\n")[0]
        raise ValueError(
            f"{file} must be a whole checkpoint of this run ({reason}); start again with --fresh"
        ) from None
    return state


def discard_checkpoint(run: Run) -> None:
    """Remove the checkpoint of a finished run; in a folder that cannot be written it stays."""
    with suppress(OSError):
        (run.path / CHECKPOINT).unlink(missing_ok=True)
