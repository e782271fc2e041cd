"""The loop: any `Task` is trained epoch by epoch, saved, stopped by a signal, and gone on with to the same bit.

It knows no method, no data set and no loss. Until a run is finished its folder holds

    checkpoint.pt   tensors and plain values: what the steps change, the rows of the history, where the epoch stands
    history.csv     one row per finished epoch: the means of what its steps returned, and what was measured after it
"""

from __future__ import annotations

import io
import math
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any, Protocol

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm.auto import tqdm

from ..runs import Run, StoppedError
from ..writing import write_bytes, write_table
from .step import random_state, set_random_state

__all__ = ["DivergedError", "Task", "discard_checkpoint", "fit", "load_checkpoint"]

CHECKPOINT = "checkpoint.pt"
ADVICE = "try a lower --lr, more --warmup-epochs or --precision 32-true"
KEPT = ("rows", "session", "step", "sums", "last", "seconds", "random")  # of a `_Course`, in a checkpoint
SAVE_SECONDS = 60.0  # from one checkpoint to the next: as much training as a kill may cost
LOOK_EVERY = 10  # steps: so often the host waits for the device, to show what it sums up and see that it is a number


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

        Of tensors that is the mean over the epoch, and they must stay finite; of plain numbers it is the last.
        """

    def measure(self, row: Mapping[str, float]) -> Mapping[str, float]:
        """What else goes into an epoch's row of the history; no step notices it. Asked of the process that saves."""


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
        _noted(course.signals),
        tqdm(total=epochs * steps, initial=done, unit="step", smoothing=0.05, disable=hidden) as bar,
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        try:
            while len(course.rows) < epochs:
                bar.set_description(f"{run.id} epoch {len(course.rows) + 1}/{epochs}")
                course.train(bar)
                course.measure()
                course.show(on_epoch)
                course.rest(course.asked())
            course.save()  # more epochs can go on from it
        except StoppedError as error:
            raise StoppedError(error.signum, f"and {course.kept_text()}") from None
        except DivergedError as error:
            raise DivergedError(f"{error}: {ADVICE}; {course.kept_text()}") from None
    return course.session


@contextmanager
def _noted(signals: list[int]) -> Iterator[None]:
    """SIGINT and SIGTERM are noted, for the loop to act on between two steps; a second one stops the run at once."""

    def note(number: int, frame: object) -> None:
        signals.append(number)
        if len(signals) > 1:
            raise StoppedError(number)

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    heard = [n for n in numbers if signal.getsignal(n) not in (None, signal.SIG_IGN)]  # what nohup ignores stays so
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    signals: list[int] = field(default_factory=list)  # received
    saved: float = field(default_factory=lambda: time.perf_counter())  # on a clock that is never set back
    at: tuple[int, int] = (0, 0)  # epochs and steps in the last checkpoint

    @property
    def writes(self) -> bool:
        """Whether this process is the one that measures and writes."""
        return self.task.fabric.is_global_zero

    def train(self, bar: tqdm) -> None:
        """The epoch's steps, or those that are left of it."""
        task, steps, begun = self.task, self.task.steps_per_epoch, time.perf_counter()
        batches = task.batches(len(self.rows), self.step)
        if self.random:
            set_random_state(self.random, task.fabric.device)
        for batch in batches:
            self._count(task.step(batch, len(self.rows) * steps + self.step))
            asked = self.asked()
            looks = asked or self.step == steps or self.step % LOOK_EVERY == 0
            if looks:
                bar.set_postfix({k: f"{v:.3f}" for k, v in self._finite_means().items()}, refresh=False)
            now = time.perf_counter()
            self.seconds, begun = self.seconds + now - begun, now
            bar.update()
            if looks:
                self.rest(asked)

    def measure(self) -> None:
        """End the epoch: its row is what its steps came to, and what the task measures now."""
        begun, fabric = time.perf_counter(), self.task.fabric
        row = {"epoch": len(self.rows) + 1, **self._finite_means(), **self.last, "train_seconds": self.seconds}
        measured = fabric.broadcast(dict(self.task.measure(row)) if self.writes else {})
        row |= {name: float(value) for name, value in measured.items()}
        row |= {"seconds": self.seconds + time.perf_counter() - begun, "session": self.session}
        self.rows.append(row)
        self.step, self.sums, self.last, self.seconds, self.random = 0, {}, {}, 0.0, []

    def show(self, on_epoch: Callable[[pd.DataFrame], None] | None) -> None:
        """Write the history and show it; save if showing it fails."""
        history = pd.DataFrame(self.rows)
        if self.writes:
            write_table(self.run.path / "history.csv", history)
        try:
            if on_epoch is not None:
                on_epoch(history)
        except BaseException:
            self.save()
            raise

    def asked(self) -> int:
        """The signal that any process of the run has received, or 0; where there are several, each must ask."""
        asked, fabric = max(self.signals, default=0), self.task.fabric
        if fabric.world_size > 1:
            asked = int(fabric.all_reduce(torch.tensor(asked, device=fabric.device), reduce_op="max"))  # type: ignore[arg-type]
        return asked

    def rest(self, asked: int) -> None:
        """Between two steps: save if it is time to, or if the run was asked to stop, which it then does."""
        if asked or time.perf_counter() - self.saved >= SAVE_SECONDS:
            self.save()
        if asked:
            raise StoppedError(asked)

    def save(self) -> None:
        """Write a checkpoint of here, unless it is there already."""
        here = (len(self.rows), self.step)
        if self.writes and here != self.at:
            self.random = random_state(self.task.fabric.device) if self.step else []
            state = {name: getattr(self, name) for name in KEPT}
            buffer = io.BytesIO()
            torch.save(state | {"parts": {k: part.state_dict() for k, part in self.task.stateful.items()}}, buffer)
            write_bytes(self.run.path / CHECKPOINT, buffer.getbuffer())
        self.at, self.saved = here, time.perf_counter()

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

    def _finite_means(self) -> dict[str, float]:
        """The means so far: what has once been added to a sum and was no number stays there."""
        means = {name: float(value) / self.step for name, value in self.sums.items()}
        bad = [f"{name} became {value}" for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise DivergedError(f"{', '.join(bad)} in epoch {len(self.rows) + 1}, at step {self.step} or before")
        return means


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
        return {name: state[name] for name in (*KEPT, "parts")}
    except Exception as error:
        said = shorten(str(error), 100, placeholder=" …")
        raise ValueError(f"{file} must be a whole checkpoint of this run ({said}); start again with --fresh") from None


def discard_checkpoint(run: Run) -> None:
    """Remove the checkpoint of a finished run; in a folder that cannot be written it stays."""
    with suppress(OSError):
        (run.path / CHECKPOINT).unlink(missing_ok=True)
