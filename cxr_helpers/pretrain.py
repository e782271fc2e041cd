"""The one training loop: for every method, for supervised training and for fine-tuning.

It knows no method: it asks for views, runs forward, minimises what `loss` returns and logs whatever keys arrive.
`loop` holds one epoch of it; here are run-or-load, when to save and to stop, and what is measured between the epochs.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from .config import PretrainConfig, RuntimeConfig
from .data import Dataset, keep_labels, load_dataset
from .locks import LockedError, run_lock
from .loop import (
    DivergedError,
    Keeper,
    Progress,
    StoppedError,
    StopSignals,
    Training,
    build_training,
    check_fit,
    discard_checkpoints,
    load_checkpoint,
    make_fabric,
    mixed_precision,
    signs_of_collapse,
    stop_if_diverged,
    train_epoch,
    validate,
)
from .models import backbone_bytes, state_digest
from .recipes import command_of, find_run, record_of, resolve
from .runs import (
    LOCK,
    Run,
    RunWarning,
    environment_record,
    now,
    results_root,
    start_run,
    write_bytes,
    write_json,
    write_table,
    write_tensors,
)

__all__ = [
    "DivergedError",
    "LockedError",
    "StoppedError",
    "command_of",
    "make_fabric",
    "mixed_precision",
    "pretrain",
    "resolve",
]


def pretrain(
    config: PretrainConfig,
    dataset: Dataset | None = None,
    runtime: RuntimeConfig = RuntimeConfig(),
    *,
    fresh: bool = False,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
) -> Run:
    """Train the configured method, or return the finished run of the same configuration and data.

    Args:
        config: what is learnt; `epochs=0` records the initial backbone (random, or ImageNet's) as a baseline.
        dataset: the data; None loads `config.dataset` at `config.size`.
        runtime: where and how.
        fresh: retrain from the start even if the run is there.
        on_epoch: called with the history after every epoch (the notebook's live figure).
    Returns:
        The run: its folder, history and records, `status` trained, resumed or loaded.
    Raises:
        ValueError: a configuration that does not fit the method or the data, or a checkpoint that cannot be read;
        OSError: results cannot be written; LockedError: another process trains this run;
        DivergedError: loss, gradient or features are no longer numbers;
        StoppedError: a signal came (a KeyboardInterrupt); the state is saved, and the same call goes on from there.
    """
    config = resolve(config)
    if dataset is None:
        dataset = load_dataset(config.dataset, config.size, runtime.root)
    record = record_of(config, dataset)  # of the whole data: fraction and seed say which labels were kept
    run = find_run(results_root(runtime), record)
    if config.label_fraction < 1:
        dataset = keep_labels(dataset, config.label_fraction, config.seed)
    check_fit(config, dataset)
    if run.finished and not fresh:
        _tidy(run)
        return run
    training = build_training(config, dataset, runtime)  # before the folder: what cannot be built leaves nothing behind
    with StopSignals() as stop, run_lock(run) if training.writes else nullcontext():
        if training.fabric.broadcast(run.finished) and not fresh:  # by the process that held the lock until now
            return run
        if training.writes:
            start_run(run, fresh=fresh)
        training.fabric.barrier()  # every process sees the folder as the writer left it
        return _train(_begin(training, run, Keeper(run, writes=training.writes), stop, on_epoch))


def _tidy(run: Run) -> None:
    """Remove what a process left behind that was killed after a run's last record, unless another is at it just now."""
    if not any(run.path.glob("checkpoint*")) and not (run.path / LOCK).exists():
        return
    with suppress(OSError, LockedError), warnings.catch_warnings():  # OSError: a folder that cannot be written
        warnings.simplefilter("ignore", RunWarning)
        with run_lock(run, doing="tidied up"):
            discard_checkpoints(run)


@dataclass(kw_only=True)
class _Sitting:
    """One process' part of a run, from where it begins or goes on."""

    t: Training
    run: Run
    keeper: Keeper
    stop: StopSignals
    on_epoch: Callable[[pd.DataFrame], None] | None
    rows: list[dict[str, Any]]
    number: int  # from 1, counting those that left a checkpoint
    progress: Progress
    began: float = 0.0  # when the epoch's training went on, on the clock that is never set
    warned: bool = False


def _begin(
    t: Training, run: Run, keeper: Keeper, stop: StopSignals, on_epoch: Callable[[pd.DataFrame], None] | None
) -> _Sitting:
    """Start from the beginning, or from the checkpoint where there is one."""
    rows: list[dict[str, Any]] = []
    number, progress = 1, Progress(epoch=0)
    checkpoint = load_checkpoint(run)
    if checkpoint is not None:
        t.method.load_state_dict(checkpoint["method"])
        t.optimizer.load_state_dict(checkpoint["optimizer"])
        t.probe.load_state_dict(checkpoint["probe"])
        rows, number = list(checkpoint["rows"]), int(checkpoint["sessions"]) + 1
        within = checkpoint.get("progress")  # None at an epoch's end; the first format knew nothing else
        progress = Progress(epoch=len(rows)) if within is None else Progress.read(within, t.fabric.device)
        keeper.kept = (len(rows), progress.step)
        if t.writes and rows:
            write_table(
                run.path / "history.csv", pd.DataFrame(rows)
            )  # stopped between the two, it lacks the last epoch
    return _Sitting(
        t=t,
        run=run,
        keeper=keeper,
        stop=stop,
        on_epoch=on_epoch,
        rows=rows,
        number=number,
        progress=progress,
    )


def _train(s: _Sitting) -> Run:
    t, run = s.t, s.run
    environment = {
        **environment_record(t.fabric.device, mixed_precision(t.fabric)),
        "processes": t.fabric.world_size,
        "command": command_of(t.config, t.dataset, t.runtime),
        "runtime": {**asdict(t.runtime), "results": None, "root": None},  # no paths of this machine
        "data": dict(t.dataset.provenance),
    }
    if len(s.rows) < t.config.epochs:
        _epochs(s)
    if t.writes:
        _finish(s, environment)
    t.fabric.barrier()
    if s.stop.received is not None:
        raise StoppedError(s.stop.received, f"when run {run.id} had just been trained to its end")
    return replace(run, status="trained" if s.number == 1 else "resumed")


def _finish(s: _Sitting, environment: dict[str, Any]) -> None:
    """Write what a finished run consists of; its record last, by which it counts as finished."""
    t, run = s.t, s.run
    write_bytes(run.weights, backbone_bytes(t.method.backbone))
    classifier = t.method.classifier()
    if classifier is not None:
        write_tensors(run.path / "head.safetensors", classifier.state_dict())
    environment["backbone_sha256"] = state_digest(t.method.backbone.net.state_dict())  # names it where the file is gone
    environment |= {"finished": now(), "seconds": round(sum(r["seconds"] for r in s.rows), 1)}
    environment |= {"sessions": s.number, "images": str(t.feed), "micro_batch": t.micro_batch}
    write_json(run.path / "environment.json", environment)
    discard_checkpoints(run)


def _epochs(s: _Sitting) -> None:
    t = s.t
    steps = t.steps_per_epoch
    with (
        tqdm(
            total=t.config.epochs * steps,
            initial=len(s.rows) * steps + s.progress.step,
            unit="step",
            disable=not (t.runtime.progress and t.writes),
            smoothing=0.05,
        ) as bar,
        torch.random.fork_rng(devices=[t.fabric.device] if t.fabric.device.type == "cuda" else []),
    ):
        while len(s.rows) < t.config.epochs:
            bar.set_description(f"{s.run.id} epoch {len(s.rows) + 1}/{t.config.epochs}{_alarm(s)}")
            try:
                row = _epoch_row(s, bar)
            except StoppedError as error:
                raise StoppedError(error.signum, _where(s)) from None
            except DivergedError as error:
                raise DivergedError(f"{error}; {s.keeper.kept_text()}") from None
            s.rows.append({**row, "session": s.number})
            s.progress = Progress(epoch=len(s.rows), in_a_row=s.progress.in_a_row)
            _end_epoch(s)


def _end_epoch(s: _Sitting) -> None:
    """Keep what the epoch brought, show it, and stop here if a signal came or the callback wants it."""
    if s.keeper.due(within_epoch=False):
        _save(s)
    history = pd.DataFrame(s.rows)
    if s.t.writes:
        write_table(s.run.path / "history.csv", history)
    try:
        if s.on_epoch is not None:
            s.on_epoch(history)
        if len(s.rows) < s.t.config.epochs and (asked := s.stop.asked(s.t.fabric)):
            _save(s)
            raise StoppedError(asked, _where(s))
    except BaseException:
        _save(s)
        raise


def _epoch_row(s: _Sitting, bar: tqdm) -> dict[str, Any]:
    """One epoch of training, or the rest of one, and what was measured after it."""
    t, p = s.t, s.progress
    s.began = time.perf_counter()
    if p.trained is None:
        trained = train_epoch(t, p.epoch, bar, p, lambda: _after_step(s))
        p.seconds, p.trained = _seconds(s), trained
    measuring = time.perf_counter()
    try:
        with s.stop.at_once():
            measured = t.fabric.broadcast(_measure(t) if t.writes and _to_measure(t, p.epoch) else {})
    except StoppedError:
        _save(s)
        raise
    watched = {name: value for name, value in p.trained.items() if name == "online_loss"}
    watched |= {name: value for name, value in measured.items() if name == "feature_std"}
    stop_if_diverged(watched, p.epoch, t.steps_per_epoch - 1, p.trained["lr"])
    row = {"epoch": p.epoch + 1, **p.trained, **measured}
    row["collapsed"] = len(_collapse(s, row))
    timing = {"images_per_second": t.steps_per_epoch * t.batch_size / p.seconds, "train_seconds": p.seconds}
    return {**row, **timing, "seconds": p.seconds + time.perf_counter() - measuring}


def _to_measure(t: Training, epoch: int) -> bool:
    """Whether val is looked at after an epoch, counted from 0; always after the last."""
    return (epoch + 1) % t.runtime.measure_every == 0 or epoch + 1 == t.config.epochs


def _measure(t: Training) -> dict[str, float]:
    options: dict[str, Any] = {"device": t.fabric.device, "precision": mixed_precision(t.fabric)}
    return validate(t.method, t.probe, t.dataset, knn_bank=t.runtime.knn_bank, **options)


def _seconds(s: _Sitting) -> float:
    """Seconds of training in this epoch, earlier sittings included."""
    return s.progress.seconds + (time.perf_counter() - s.began if s.progress.trained is None else 0.0)


def _after_step(s: _Sitting) -> None:
    """Save and stop if a signal came; save if the last time was long ago."""
    if s.progress.step == s.t.steps_per_epoch:  # its panel is still to come; `_epoch_row` looks next
        return
    asked = s.stop.asked(s.t.fabric)
    if asked or s.keeper.due(within_epoch=True):
        _save(s)
    if asked:
        raise StoppedError(asked)


def _save(s: _Sitting) -> None:
    """Write a checkpoint of here, unless it is there already or the last step was skipped.

    The weights may be why it was: what is kept is the last state known to be good, and resuming comes by here again.
    """
    t, p = s.t, s.progress
    here = (len(s.rows), p.step)
    if p.in_a_row or s.keeper.kept == here:
        return
    state = {"method": t.method.state_dict(), "optimizer": t.optimizer.state_dict(), "probe": t.probe.state_dict()}
    within = p.state(t.fabric.device, _seconds(s)) if p.step else None
    s.keeper.save({**state, "rows": s.rows, "sessions": s.number, "progress": within}, here)


def _where(s: _Sitting) -> str:
    epochs, step, steps = len(s.rows), s.progress.step, s.t.steps_per_epoch
    at = f"after step {step} of {steps} in epoch {epochs + 1}" if step else f"after epoch {epochs}"
    return f"{at}; {'all of it is kept' if s.keeper.kept == (epochs, step) else s.keeper.kept_text()}"


def _collapse(s: _Sitting, row: dict[str, Any]) -> list[str]:
    """Signs of collapse, with a warning at the first. Learning from labels may put a class on one point: not judged."""
    if s.t.method.needs_labels:
        return []
    attainable = min(int(s.t.dataset.val.labelled.sum()) - 1, s.t.method.backbone.feature_dim)
    signs = signs_of_collapse(row, attainable)
    if signs and not s.warned:
        s.warned = True
        text = f"run {s.run.id} collapses in epoch {row['epoch']}: {', '.join(signs)}"
        warnings.warn(text, RunWarning, stacklevel=2)
    return signs


def _alarm(s: _Sitting) -> str:
    return " COLLAPSED" if s.rows and s.rows[-1].get("collapsed") else ""
