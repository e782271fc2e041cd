"""The one training loop: for every method, for supervised training and for fine-tuning.

It knows no method: it asks for views, runs forward, minimises what `loss` returns and logs whatever keys arrive.
Everything random comes from (seed, epoch, image) or (seed, epoch, step), so that a run that was interrupted and resumed
equals one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm.auto import tqdm

from .augment import draw_table, normalise
from .backbones import build_backbone, save_backbone, state_digest
from .config import PretrainConfig, RuntimeConfig, run_id
from .data import Dataset, keep_labels, load_dataset
from .devices import make_fabric, mixed_precision
from .methods import METHODS, Batch, Method, Target, get_options
from .monitor import DivergedError, embedding_panel, stop_if_diverged, validate
from .optim import build_optimizer, lr_at, parameter_groups
from .policies import get_policy
from .probe import OnlineProbe
from .probe.features import labelled_rows
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

BAR_SECONDS = 0.5  # how often the bar's figures are refreshed; each refresh waits for the device once


# ---- the loop


@dataclass(kw_only=True)
class _Training:
    """The moving parts of one run."""

    config: PretrainConfig
    runtime: RuntimeConfig
    dataset: Dataset
    fabric: Fabric
    method: Method
    wrapped: Any  # the method as Fabric runs it
    optimizer: Any
    probe: OnlineProbe
    images: Tensor  # uint8 [N, C, S, S] on the device
    labels: Tensor  # [N] or [N, L] on the device
    usable: np.ndarray  # indices of the training images this method can use

    @property
    def steps_per_epoch(self) -> int:
        return len(self.usable) // _batch_size(self.config)

    def lr(self, step: int) -> float:
        """Scheduled rate before the groups' factors."""
        c = self.config
        assert c.lr is not None and c.warmup_epochs is not None
        total = c.epochs * self.steps_per_epoch
        warmup = min(round(c.warmup_epochs * self.steps_per_epoch), total // 3)
        return lr_at(step, base_lr=c.lr * _batch_size(c) / 256, warmup_steps=warmup, total_steps=total)


def _batch_size(config: PretrainConfig) -> int:
    assert config.batch_size is not None
    return config.batch_size


def _check(config: PretrainConfig, dataset: Dataset) -> None:
    if dataset.size != config.size:
        raise ValueError(f"size must be the data set's {dataset.size} px, got {config.size}")
    usable = len(_usable(config, dataset))
    if config.epochs and _batch_size(config) > usable:
        what = "labelled training images" if METHODS[config.method].needs_labels else "training images"
        raise ValueError(f"batch_size must be at most the {usable} {what} of {dataset.name}, got {config.batch_size}")
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        labels = split.labels[labelled_rows(split.labels)]
        if not len(labels) or not bool((labels.amin(0) < labels.amax(0)).any()):
            raise ValueError(
                f"the {name} split of {dataset.name} must hold at least two classes for AUC, got one or none"
            )


def _usable(config: PretrainConfig, dataset: Dataset) -> np.ndarray:
    if METHODS[config.method].needs_labels:
        return dataset.train.labelled.nonzero().squeeze(1).numpy()
    return np.arange(len(dataset.train))


def _build(config: PretrainConfig, dataset: Dataset, runtime: RuntimeConfig) -> _Training:
    fabric = make_fabric(runtime)
    policy = get_policy(config.policy, config.policy_changes)
    backbone = build_backbone(
        config.backbone,
        channels=dataset.channels,
        size=config.size,
        init=config.init,
        normalisation=policy.normalisation.for_channels(dataset.channels),
        seed=config.seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)  # the head's own stream: the same for every initialisation of the backbone
        probe = OnlineProbe(
            backbone.feature_dim, dataset.task, dataset.num_outputs, dataset.train.labels, lr=config.online_lr
        )
        weight = None if dataset.task == "multiclass" else probe.pos_weight
        target = Target(task=dataset.task, num_outputs=dataset.num_outputs, positive_weight=weight)
        method = METHODS[config.method](backbone, get_options(config.method, config.options), target)
    method.target = replace(target, positive_weight=None if weight is None else fabric.to_device(weight))
    probe = probe.to(fabric.device)
    groups = parameter_groups(backbone, method.head.parameters(), config.weight_decay or 0.0, config.backbone_lr_factor)
    method = method.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert config.optimizer is not None and config.lr is not None
    wrapped, optimizer = fabric.setup(method, build_optimizer(config.optimizer, groups, config.lr))
    return _Training(
        config=config,
        runtime=runtime,
        dataset=dataset,
        fabric=fabric,
        method=method,
        wrapped=wrapped,
        optimizer=optimizer,
        probe=probe,
        images=dataset.train.images.to(fabric.device),
        labels=dataset.train.labels.to(fabric.device),
        usable=_usable(config, dataset),
    )


def _batches(t: _Training, epoch: int) -> Iterator[Batch]:
    """The batches of one epoch; order and views depend on (seed, epoch) and the image alone."""
    c = t.config
    views = t.method.views(get_policy(c.policy, c.policy_changes), c.size)
    draws = draw_table(len(t.images), views.num_views, c.seed, epoch).to(t.fabric.device)
    order = np.random.default_rng([c.seed, epoch]).permutation(t.usable)
    order_on_device = torch.from_numpy(order).to(t.fabric.device)
    normalisation = t.method.backbone.normalisation
    for step in range(t.steps_per_epoch):
        noise = torch.Generator(t.fabric.device).manual_seed(_step_seed(c.seed, epoch, step))
        indices = order_on_device[step * _batch_size(c) : (step + 1) * _batch_size(c)]
        made = views(t.images[indices], draws[indices], noise)
        yield Batch(views=tuple(normalise(v, normalisation) for v in made), indices=indices, labels=t.labels[indices])


def _step_seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _train_epoch(t: _Training, epoch: int, bar: tqdm) -> dict[str, float]:
    """One pass over the training images; returns the epoch's means and the panel of its last batch."""
    sums: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    t.method.train()
    torch.manual_seed(_step_seed(t.config.seed, epoch, t.steps_per_epoch))  # for methods with dropout or draws inside
    shown = time.perf_counter()
    for step, batch in enumerate(_batches(t, epoch)):
        lr = t.lr(epoch * t.steps_per_epoch + step)
        for group in t.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        outputs = t.wrapped(batch)
        terms = t.method.loss(outputs)
        t.optimizer.zero_grad()
        t.fabric.backward(terms["loss"])
        t.optimizer.step()
        t.method.after_step()
        if step == 0:
            first_loss = float(terms["loss"].detach())
        terms["online_loss"] = t.probe.step(outputs["features"], batch.labels)
        for name, value in terms.items():
            sums[name] = sums.get(name, torch.zeros((), device=t.fabric.device)) + value.detach().float()
        if time.perf_counter() - shown > BAR_SECONDS or step == t.steps_per_epoch - 1:
            shown = time.perf_counter()
            means = {name: float(value) / (step + 1) for name, value in sums.items()}
            stop_if_diverged(means, epoch, step, lr)
            bar.set_postfix({k: f"{v:.3f}" for k, v in means.items()}, refresh=False)
        bar.update()
    return {**means, "first_loss": first_loss, "lr": lr, **embedding_panel(outputs)}


# ---- from configuration to run


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
    _check(config, dataset)
    if run.finished and not fresh:
        return run
    training = _build(config, dataset, runtime)  # before the folder: what cannot be built leaves nothing behind
    start_run(run, fresh=fresh)
    return _train(training, run, on_epoch)


def _train(t: _Training, run: Run, on_epoch: Callable[[pd.DataFrame], None] | None) -> Run:
    environment = {
        **environment_record(t.fabric.device, mixed_precision(t.fabric)),
        "command": command_of(t.config),
        "runtime": {**asdict(t.runtime), "results": None, "root": None},  # no paths of this machine
        "data": dict(t.dataset.provenance),
    }
    rows: list[dict[str, Any]] = []
    checkpoint = load_checkpoint(run)
    if checkpoint is not None:
        rows = _restore(t, checkpoint)
        write_table(run.path / "history.csv", pd.DataFrame(rows))  # stopped between the two, it lacks the last epoch
    if len(rows) < t.config.epochs:
        _epochs(t, run, rows, on_epoch)
    save_backbone(t.method.backbone, run.weights)
    classifier = t.method.classifier()
    if classifier is not None:
        write_tensors(run.path / "head.safetensors", classifier.state_dict())
    environment["backbone_sha256"] = state_digest(t.method.backbone.net.state_dict())  # names it where the file is gone
    environment |= {"finished": now(), "seconds": round(sum(r["seconds"] for r in rows), 1)}
    environment["sessions"] = 1 if checkpoint is None else int(checkpoint["sessions"]) + 1
    write_json(run.path / "environment.json", environment)
    (run.path / "checkpoint.pt").unlink(missing_ok=True)
    return replace(run, status="trained" if checkpoint is None else "resumed")


def _epochs(
    t: _Training, run: Run, rows: list[dict[str, Any]], on_epoch: Callable[[pd.DataFrame], None] | None
) -> None:
    sessions = 1 if not rows else int(rows[-1]["session"]) + 1
    steps = t.steps_per_epoch
    with (
        tqdm(
            total=t.config.epochs * steps,
            initial=len(rows) * steps,
            unit="step",
            disable=not t.runtime.progress,
            smoothing=0.05,
        ) as bar,
        torch.random.fork_rng(devices=[t.fabric.device] if t.fabric.device.type == "cuda" else []),
    ):
        for epoch in range(len(rows), t.config.epochs):
            bar.set_description(f"{run.id} epoch {epoch + 1}/{t.config.epochs}")
            rows.append({**_epoch_row(t, epoch, bar), "session": sessions})
            save_checkpoint(run, {**_state(t), "rows": rows, "sessions": sessions})
            write_table(run.path / "history.csv", pd.DataFrame(rows))
            if on_epoch is not None:
                on_epoch(pd.DataFrame(rows))


def _epoch_row(t: _Training, epoch: int, bar: tqdm) -> dict[str, float]:
    """One epoch of training and what was measured after it."""
    begin = time.perf_counter()
    trained = _train_epoch(t, epoch, bar)
    seconds = time.perf_counter() - begin
    measured = validate(
        t.method,
        t.probe,
        t.dataset,
        device=t.fabric.device,
        precision=mixed_precision(t.fabric),
        knn_bank=t.runtime.knn_bank,
    )
    stop_if_diverged({"feature_std": measured["feature_std"]}, epoch, t.steps_per_epoch - 1, trained["lr"])
    timing = {"images_per_second": t.steps_per_epoch * _batch_size(t.config) / seconds, "train_seconds": seconds}
    return {"epoch": epoch + 1, **trained, **measured, **timing, "seconds": time.perf_counter() - begin}


def _state(t: _Training) -> dict[str, Any]:
    return {
        "method": t.method.state_dict(),
        "optimizer": t.optimizer.state_dict(),
        "probe": t.probe.state_dict(),
    }


def _restore(t: _Training, checkpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    t.method.load_state_dict(checkpoint["method"])
    t.optimizer.load_state_dict(checkpoint["optimizer"])
    t.probe.load_state_dict(checkpoint["probe"])
    return list(checkpoint["rows"])
