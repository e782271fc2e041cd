"""The one training loop: for every method, for supervised training and for fine-tuning.

It knows no method: it asks for views, runs forward, minimises what `loss` returns and logs whatever keys arrive.
Everything random comes from (seed, epoch, image) or (seed, step), so that a run that was interrupted and resumed equals
one that was not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm.auto import tqdm

from .augment import draw_table, normalise
from .backbones import build_backbone, imagenet_state, load_backbone, save_backbone, state_digest
from .config import PretrainConfig, RuntimeConfig, run_id
from .data import Dataset, keep_labels, load_dataset
from .features import Features, extract_features, labelled_rows
from .methods import METHODS, Batch, Method, Target, get_options
from .metrics import (
    accuracy,
    alignment,
    auc_score,
    effective_rank,
    feature_std,
    per_label_auc,
    projection_std,
    uniformity,
)
from .optim import build_optimizer, lr_at, parameter_groups
from .policies import AugmentationPolicy, get_policy
from .probe import OnlineProbe, knn_probe
from .runs import (
    Run,
    environment_record,
    load_checkpoint,
    now,
    open_run,
    results_root,
    save_checkpoint,
    write_json,
    write_table,
)

__all__ = ["DivergedError", "command_of", "make_fabric", "mixed_precision", "pretrain", "resolve"]

BAR_SECONDS = 0.5  # how often the bar's figures are refreshed; each refresh waits for the device once


class DivergedError(RuntimeError):
    """The loss stopped being a number; the message says where, with which terms, and what to try."""


# ---- what a run is


def resolve(config: PretrainConfig) -> PretrainConfig:
    """The configuration with the method's recipe in every field left at None.

    Raises:
        ValueError: an unknown method, option, policy or policy field, or one out of range.
    """
    get_options(config.method, config.options)
    get_policy(config.policy, config.policy_changes)
    recipe = dict(METHODS[config.method].recipe)
    options = {**recipe.pop("options", {}), **config.options}
    filled = {name: value for name, value in recipe.items() if getattr(config, name) is None}
    return replace(config, options=options, **filled)


def _record(config: PretrainConfig, dataset: Dataset) -> dict[str, Any]:
    """Everything that decides what is learnt, as plain values: this is hashed into the run's name and stored."""
    return {
        **asdict(config),
        "options": asdict(get_options(config.method, config.options)),
        "policy_fields": _magnitudes(get_policy(config.policy, config.policy_changes)),
        "init_sha256": _init_digest(config),
        "fingerprint": dataset.fingerprint,
    }


def _magnitudes(policy: AugmentationPolicy) -> dict[str, Any]:
    """A policy's numbers, without its words: rewording a reason does not rename a run."""
    return {key: value for key, value in asdict(policy).items() if key not in ("name", "reason")}


def _init_digest(config: PretrainConfig) -> str | None:
    if config.init == "random":
        return None
    if config.init == "imagenet":
        return imagenet_state(config.backbone)[1]
    return state_digest(load_backbone(config.init).net.state_dict())


def command_of(config: PretrainConfig) -> str:
    """The command line that repeats a run: every field that differs from its default."""
    words = ["python train.py"]
    default = PretrainConfig()
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name in ("dataset", "size", "method", "policy", "epochs", "seed") or value != getattr(default, f.name):
            if isinstance(value, Mapping):
                value = " ".join(f"{k} {v}" for k, v in value.items())
            words.append(f"--{f.name.replace('_', '-')} {value}")
    return " ".join(words)


# ---- where it runs


def _precision(wanted: str, device: torch.device) -> str:
    """bf16 autocast where the device multiplies bf16 faster than float32."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if device.type == "cpu":
        return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"
    return "32-true"


def make_fabric(runtime: RuntimeConfig) -> Fabric:
    """Fabric for one process on one device, its precision resolved.

    Raises:
        ValueError: the device asked for is not there, or more than one process was started.
    """
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    available = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[runtime.device]:
        raise ValueError(f"device must be one that this machine has, got {runtime.device!r}; use --device auto")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    probe = Fabric(accelerator=runtime.device, devices=1)
    fabric = Fabric(accelerator=runtime.device, devices=1, precision=_precision(runtime.precision, probe.device))  # type: ignore[arg-type]
    fabric.launch()
    if fabric.world_size != 1:
        raise ValueError(
            f"the number of processes must be 1, got {fabric.world_size}; start one with --nproc-per-node 1"
        )
    return fabric


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


def _check(config: PretrainConfig, dataset: Dataset, usable: np.ndarray) -> None:
    if dataset.size != config.size:
        raise ValueError(f"size must be the data set's {dataset.size} px, got {config.size}")
    if _batch_size(config) > len(usable):
        what = "labelled training images" if METHODS[config.method].needs_labels else "training images"
        raise ValueError(f"batch_size must be at most the {len(usable)} {what}, got {config.batch_size}")
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
        terms["online_loss"] = t.probe.step(outputs["features"], batch.labels)
        for name, value in terms.items():
            sums[name] = sums.get(name, torch.zeros((), device=t.fabric.device)) + value.detach().float()
        if time.perf_counter() - shown > BAR_SECONDS or step == t.steps_per_epoch - 1:
            shown = time.perf_counter()
            means = {name: float(value) / (step + 1) for name, value in sums.items()}
            _stop_if_diverged(means, epoch, step, lr)
            bar.set_postfix({k: f"{v:.3f}" for k, v in means.items()}, refresh=False)
        bar.update()
    return {**means, "lr": lr, **_embedding_panel(outputs)}


def _stop_if_diverged(means: Mapping[str, float], epoch: int, step: int, lr: float) -> None:
    if not all(np.isfinite(v) for v in means.values()):
        terms = ", ".join(f"{k} {v:.3g}" for k, v in means.items())
        raise DivergedError(
            f"the loss became {means['loss']} in epoch {epoch + 1}, step {step + 1}, at rate {lr:.3g} ({terms}); "
            "the checkpoint of the epoch before is kept: try a lower --lr, more --warmup-epochs or --precision 32-true"
        )


def _embedding_panel(outputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Alignment, uniformity and spread of the embeddings of one training batch, for methods that have two."""
    if "z_a" not in outputs:
        return {}
    z_a, z_b = (outputs[k].detach().float().cpu().numpy() for k in ("z_a", "z_b"))
    return {
        "alignment": alignment(z_a, z_b),
        "uniformity": uniformity(z_a),
        "projection_std": projection_std(z_a),
    }


def _validate(t: _Training) -> dict[str, float]:
    """The online probe and kNN on val, and the panel of its features."""
    options: dict[str, Any] = {"device": t.fabric.device, "precision": mixed_precision(t.fabric)}
    normalisation = t.method.backbone.normalisation
    val = extract_features(t.method.encode, t.dataset.val, normalisation, **options).labelled()
    row = {"feature_std": feature_std(val.x), "effective_rank": effective_rank(val.x)}
    online = t.probe.scores(torch.from_numpy(val.x).to(t.fabric.device))
    row |= _scored("online", t.dataset, val, online)
    bank_rows = _knn_rows(t)
    bank = extract_features(t.method.encode, t.dataset.train.take(bank_rows), normalisation, **options)
    near = knn_probe(bank, val, task=t.dataset.task, num_outputs=t.dataset.num_outputs, device=t.fabric.device)
    return row | {"knn_" + _metric_name(t.dataset): _metric(t.dataset)(val.labels, near)}


def mixed_precision(fabric: Fabric) -> str:
    """The precision of evaluation under this Fabric: that of training."""
    return "bf16-mixed" if fabric._precision.precision == "bf16-mixed" else "32-true"


def _knn_rows(t: _Training) -> np.ndarray:
    labelled = t.dataset.train.labelled.nonzero().squeeze(1).numpy()
    return np.sort(np.random.default_rng(0).permutation(labelled)[: t.runtime.knn_bank])


def _metric_name(dataset: Dataset) -> str:
    return "accuracy" if dataset.task == "multiclass" else "auc"


def _metric(dataset: Dataset) -> Callable[[Any, Any], float]:
    return accuracy if dataset.task == "multiclass" else auc_score


def _scored(prefix: str, dataset: Dataset, split: Features, scores: Any) -> dict[str, float]:
    row = {f"{prefix}_{_metric_name(dataset)}": _metric(dataset)(split.labels, scores)}
    if dataset.task == "multilabel":
        per_label = per_label_auc(split.labels, scores)
        row |= {f"{prefix}_auc/{name}": float(v) for name, v in zip(dataset.class_names, per_label, strict=True)}
    return row


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
    if config.label_fraction < 1:
        dataset = keep_labels(dataset, config.label_fraction, config.seed)
    _check(config, dataset, _usable(config, dataset))
    record = _record(config, dataset)
    run = open_run(results_root(runtime), run_id(record, dataset.fingerprint), record, fresh=fresh)
    if run.finished:
        return run
    return _train(_build(config, dataset, runtime), run, on_epoch)


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
    if len(rows) < t.config.epochs:
        _epochs(t, run, rows, on_epoch)
    save_backbone(t.method.backbone, run.weights)
    if hasattr(t.method, "predict"):
        _save_head(t, run)
    environment |= {"finished": now(), "seconds": round(sum(r["seconds"] for r in rows), 1)}
    environment["sessions"] = 1 if checkpoint is None else int(checkpoint["sessions"]) + 1
    write_json(run.path / "environment.json", environment)
    (run.path / "checkpoint.pt").unlink(missing_ok=True)
    return replace(run, status="trained" if checkpoint is None else "resumed")


def _save_head(t: _Training, run: Run) -> None:
    """The classifier of a supervised run beside its backbone, so that its own predictions can be scored later."""
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous() for k, v in t.method.head.state_dict().items()}
    save_file(state, run.path / "head.safetensors")


def _epochs(
    t: _Training, run: Run, rows: list[dict[str, Any]], on_epoch: Callable[[pd.DataFrame], None] | None
) -> None:
    sessions = 1 if not rows else int(rows[-1]["session"]) + 1
    total = t.config.epochs * t.steps_per_epoch
    with tqdm(
        total=total, initial=len(rows) * t.steps_per_epoch, unit="step", disable=not t.runtime.progress, smoothing=0.05
    ) as bar:
        for epoch in range(len(rows), t.config.epochs):
            bar.set_description(f"{run.id} epoch {epoch + 1}/{t.config.epochs}")
            begin = time.perf_counter()
            trained = _train_epoch(t, epoch, bar)
            seconds = time.perf_counter() - begin
            images = t.steps_per_epoch * _batch_size(t.config)
            timing = {"images_per_second": images / seconds, "train_seconds": seconds}
            row = {"epoch": epoch + 1, **trained, **_validate(t), **timing}
            row |= {"seconds": time.perf_counter() - begin, "session": sessions}
            rows.append(row)
            save_checkpoint(run, {**_state(t), "rows": rows, "sessions": sessions})
            write_table(run.path / "history.csv", pd.DataFrame(rows))
            if on_epoch is not None:
                on_epoch(pd.DataFrame(rows))


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
