"""The one training loop: for every method, for supervised training and for fine-tuning.

It knows no method: it asks for views, runs forward, minimises what `loss` returns and logs whatever keys arrive.
`loop` holds one epoch of it; here are run-or-load, checkpoints, and what is measured between the epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from .backbones import save_backbone, state_digest
from .config import PretrainConfig, RuntimeConfig, run_id
from .data import Dataset, keep_labels, load_dataset
from .devices import make_fabric, mixed_precision
from .loop import Training, build_training, check_fit, train_epoch
from .monitor import DivergedError, stop_if_diverged, validate
from .recipes import command_of, record_of, resolve
from .runs import (
    Run,
    environment_record,
    find_run,
    load_checkpoint,
    now,
    results_root,
    save_checkpoint,
    start_run,
    write_json,
    write_table,
    write_tensors,
)

__all__ = ["DivergedError", "command_of", "make_fabric", "mixed_precision", "pretrain", "resolve"]


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
        ValueError: a configuration that does not fit the method or the data; OSError: results cannot be written;
        DivergedError: the loss is no longer a number.
    """
    config = resolve(config)
    if dataset is None:
        dataset = load_dataset(config.dataset, config.size, runtime.root)
    record = record_of(config, dataset)  # of the whole data: fraction and seed say which labels were kept
    run = find_run(results_root(runtime), run_id(record, dataset.fingerprint), record)
    if config.label_fraction < 1:
        dataset = keep_labels(dataset, config.label_fraction, config.seed)
    check_fit(config, dataset)
    if run.finished and not fresh:
        return run
    training = build_training(config, dataset, runtime)  # before the folder: what cannot be built leaves nothing behind
    if training.writes:
        start_run(run, fresh=fresh)
    training.fabric.barrier()  # every process sees the folder as the writer left it
    return _train(training, run, on_epoch)


def _train(t: Training, run: Run, on_epoch: Callable[[pd.DataFrame], None] | None) -> Run:
    environment = {
        **environment_record(t.fabric.device, mixed_precision(t.fabric)),
        "processes": t.fabric.world_size,
        "command": command_of(t.config),
        "runtime": {**asdict(t.runtime), "results": None, "root": None},  # no paths of this machine
        "data": dict(t.dataset.provenance),
    }
    rows: list[dict[str, Any]] = []
    checkpoint = load_checkpoint(run)
    if checkpoint is not None:
        rows = _restore(t, checkpoint)
        if t.writes:  # stopped between the two, the table lacks the last epoch
            write_table(run.path / "history.csv", pd.DataFrame(rows))
    if len(rows) < t.config.epochs:
        _epochs(t, run, rows, on_epoch)
    done = replace(run, status="trained" if checkpoint is None else "resumed")
    if t.writes:
        _finish(t, run, environment, rows, sessions=1 if checkpoint is None else int(checkpoint["sessions"]) + 1)
    t.fabric.barrier()
    return done


def _finish(t: Training, run: Run, environment: dict[str, Any], rows: list[dict[str, Any]], sessions: int) -> None:
    """Write what a finished run consists of; its record last, by which it counts as finished."""
    save_backbone(t.method.backbone, run.weights)
    classifier = t.method.classifier()
    if classifier is not None:
        write_tensors(run.path / "head.safetensors", classifier.state_dict())
    environment["backbone_sha256"] = state_digest(t.method.backbone.net.state_dict())  # names it where the file is gone
    environment |= {"finished": now(), "seconds": round(sum(r["seconds"] for r in rows), 1)}
    environment |= {"sessions": sessions, "images": str(t.feed), "micro_batch": t.micro_batch}
    write_json(run.path / "environment.json", environment)
    (run.path / "checkpoint.pt").unlink(missing_ok=True)


def _epochs(t: Training, run: Run, rows: list[dict[str, Any]], on_epoch: Callable[[pd.DataFrame], None] | None) -> None:
    sessions = 1 if not rows else int(rows[-1]["session"]) + 1
    steps = t.steps_per_epoch
    with (
        tqdm(
            total=t.config.epochs * steps,
            initial=len(rows) * steps,
            unit="step",
            disable=not (t.runtime.progress and t.writes),
            smoothing=0.05,
        ) as bar,
        torch.random.fork_rng(devices=[t.fabric.device] if t.fabric.device.type == "cuda" else []),
    ):
        for epoch in range(len(rows), t.config.epochs):
            bar.set_description(f"{run.id} epoch {epoch + 1}/{t.config.epochs}")
            rows.append({**_epoch_row(t, epoch, bar), "session": sessions})
            if t.writes:
                save_checkpoint(run, {**_state(t), "rows": rows, "sessions": sessions})
                write_table(run.path / "history.csv", pd.DataFrame(rows))
            if on_epoch is not None:
                on_epoch(pd.DataFrame(rows))


def _epoch_row(t: Training, epoch: int, bar: tqdm) -> dict[str, float]:
    """One epoch of training and what was measured after it."""
    begin = time.perf_counter()
    trained = train_epoch(t, epoch, bar)
    seconds = time.perf_counter() - begin
    measured = t.fabric.broadcast(_measure(t) if t.writes else {})
    stop_if_diverged({"feature_std": measured["feature_std"]}, epoch, t.steps_per_epoch - 1, trained["lr"])
    timing = {"images_per_second": t.steps_per_epoch * t.batch_size / seconds, "train_seconds": seconds}
    return {"epoch": epoch + 1, **trained, **measured, **timing, "seconds": time.perf_counter() - begin}


def _measure(t: Training) -> dict[str, float]:
    options: dict[str, Any] = {"device": t.fabric.device, "precision": mixed_precision(t.fabric)}
    return validate(t.method, t.probe, t.dataset, knn_bank=t.runtime.knn_bank, **options)


def _state(t: Training) -> dict[str, Any]:
    return {
        "method": t.method.state_dict(),
        "optimizer": t.optimizer.state_dict(),
        "probe": t.probe.state_dict(),
    }


def _restore(t: Training, checkpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    t.method.load_state_dict(checkpoint["method"])
    t.optimizer.load_state_dict(checkpoint["optimizer"])
    t.probe.load_state_dict(checkpoint["probe"])
    return list(checkpoint["rows"])
