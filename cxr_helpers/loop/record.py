"""A task trained into its run: by one process at a time, whole or from where it was left, with what repeats it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from ..config import DetectConfig, PretrainConfig, RuntimeConfig
from ..environment import environment_record, now
from ..recipes import command_of
from ..runs import Run, run_lock, start_run
from ..writing import write_json
from .devices import mixed_precision
from .fit import Task, discard_checkpoint, fit

if TYPE_CHECKING:
    from ..data import Dataset

__all__ = ["RecordedTask", "seed_of", "train_into"]


class RecordedTask(Task, Protocol):
    """A task whose run anyone can repeat."""

    @property
    def config(self) -> PretrainConfig | DetectConfig: ...
    @property
    def dataset(self) -> Dataset: ...
    @property
    def runtime(self) -> RuntimeConfig: ...

    def about(self) -> dict[str, Any]:
        """What of its own the record says."""

    def finish(self, run: Run) -> dict[str, Any]:
        """Write the weights that a finished run consists of; what else the record then says."""


def train_into(
    task: RecordedTask, run: Run, *, fresh: bool = False, on_epoch: Callable[[pd.DataFrame], None] | None = None
) -> Run:
    """Train a task into its run; the record comes last, and by it the run counts as finished.

    Args:
        fresh: start anew even if the run is there. on_epoch: called with the history after every epoch.
    Returns:
        The run, its `status` trained or resumed; as given where another process has finished it meanwhile.
    Raises:
        LockedError: another process trains this run. DivergedError, StoppedError, ValueError, OSError: as `fit`.
    """
    fabric, writes, runtime = task.fabric, task.fabric.is_global_zero, task.runtime
    with run_lock(run) if writes else nullcontext():
        if fabric.broadcast(run.finished) and not fresh:  # by the process that held the lock until now
            return run
        if writes:
            start_run(run, fresh=fresh)
        fabric.barrier()  # every process sees the folder as the writer left it
        environment = {
            **environment_record(fabric.device, mixed_precision(fabric)),
            "processes": fabric.world_size,
            "command": command_of(task.config, task.dataset, runtime),
            "runtime": {**asdict(runtime), "results": None, "root": None},  # no paths of this machine
            "data": dict(task.dataset.provenance),
            **task.about(),
        }
        sessions = fit(task, run, task.config.epochs, on_epoch=on_epoch, progress=runtime.progress)
        if writes:
            environment |= {"sessions": sessions, **task.finish(run)}
            seconds = 0.0 if run.history.empty else round(float(run.history["seconds"].sum()), 1)
            write_json(run.path / "environment.json", environment | {"finished": now(), "seconds": seconds})
            discard_checkpoint(run)
        fabric.barrier()
    return replace(run, status="trained" if sessions == 1 else "resumed")


def seed_of(*entropy: int, branch: tuple[int, ...] = ()) -> int:
    """A seed of its own for each combination of numbers; of a branch beside them."""
    state = np.random.SeedSequence(entropy, spawn_key=branch).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))
