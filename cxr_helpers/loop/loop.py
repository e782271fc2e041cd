"""One epoch of training: what is built for it, its batches, its steps.

Everything random comes from (seed, epoch, image) or (seed, epoch, step), so that a run that was interrupted and resumed
equals one that was not.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..augment import draw_table, get_policy, normalise
from ..config import PretrainConfig, RuntimeConfig
from ..data import Dataset
from ..methods import Batch, Method, Target, get_options, load_method
from ..models import build_backbone
from ..probe import OnlineProbe, labelled_rows
from ..runs import RunWarning
from .devices import make_fabric
from .feed import ImageFeed
from .guards import Ahead, Progress, StepGuard
from .monitor import embedding_panel
from .optim import build_optimizer, lr_at
from .step import gather, restore_on_error, step_gradient

__all__ = ["Training", "batches", "build_training", "check_fit", "train_epoch", "train_step"]

BAR_SECONDS = 0.5  # how often the bar's figures are refreshed; each refresh waits for the device once


@dataclass(kw_only=True)
class Training:
    """The moving parts of one run."""

    config: PretrainConfig
    runtime: RuntimeConfig
    dataset: Dataset
    fabric: Fabric
    method: Method
    wrapped: Any  # the method as Fabric runs it
    optimizer: Any
    probe: OnlineProbe
    guard: StepGuard
    feed: ImageFeed  # the training images
    labels: Tensor  # [N] or [N, L] on the device
    usable: np.ndarray  # indices of the training images this method can use
    micro_batch: int | None  # images of one pass; halved where the device's memory does not suffice

    @property
    def batch_size(self) -> int:
        return _batch_size(self.config)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and measures."""
        return self.fabric.is_global_zero

    @property
    def may_split(self) -> bool:
        """Whether a step that runs out of memory is tried again in parts; processes would have to agree on it."""
        return self.fabric.world_size == 1

    @property
    def steps_per_epoch(self) -> int:
        return len(self.usable) // self.batch_size

    def lr(self, step: int) -> float:
        """Scheduled rate before the groups' factors."""
        c = self.config
        assert c.lr is not None and c.warmup_epochs is not None
        total = c.epochs * self.steps_per_epoch
        warmup = min(round(c.warmup_epochs * self.steps_per_epoch), total // 3)
        return lr_at(step, base_lr=c.lr * self.batch_size / 256, warmup_steps=warmup, total_steps=total)


def _batch_size(config: PretrainConfig) -> int:
    assert config.batch_size is not None
    return config.batch_size


def check_fit(config: PretrainConfig, dataset: Dataset) -> None:
    """Refuse data that this configuration cannot be trained or probed on.

    Raises:
        ValueError: another size, fewer usable images than a batch, or a single class in train or val.
    """
    if dataset.size != config.size:
        raise ValueError(f"size must be the data set's {dataset.size} px, got {config.size}")
    usable = len(_usable_images(config, dataset))
    if config.epochs and _batch_size(config) > usable:
        what = "labelled training images" if load_method(config.method).needs_labels else "training images"
        raise ValueError(f"batch_size must be at most the {usable} {what} of {dataset.name}, got {config.batch_size}")
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        labels = split.labels[labelled_rows(split.labels)]
        if not len(labels) or not bool((labels.amin(0) < labels.amax(0)).any()):
            raise ValueError(
                f"the {name} split of {dataset.name} must hold at least two classes for AUC, got one or none"
            )


def _usable_images(config: PretrainConfig, dataset: Dataset) -> np.ndarray:
    if load_method(config.method).needs_labels:
        return dataset.train.labelled.nonzero().squeeze(1).numpy()
    return np.arange(len(dataset.train))


def build_training(config: PretrainConfig, dataset: Dataset, runtime: RuntimeConfig) -> Training:
    """Everything a run needs before its first step, on its device: model, optimizer, probe and images.

    Args:
        config: resolved (`recipes.resolve`).
    Raises:
        ValueError: a device that is not there, a batch that the processes cannot share evenly, or weights that do not
            fit the backbone.
    """
    fabric = make_fabric(runtime)
    if _batch_size(config) % fabric.world_size:
        got = f"{config.batch_size} for {fabric.world_size}"
        raise ValueError(f"batch_size must be a multiple of the number of processes, got {got}")
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
        method = load_method(config.method)(backbone, get_options(config.method, config.options), target)
    method.target = replace(target, positive_weight=None if weight is None else fabric.to_device(weight))
    probe = probe.to(fabric.device)
    groups = method.parameter_groups(
        weight_decay=config.weight_decay or 0.0, backbone_lr_factor=config.backbone_lr_factor
    )
    method = method.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fabric.world_size > 1 and fabric.device.type == "cuda":  # torch has it for GPUs alone
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    if runtime.compile:
        method.backbone.compile()
    assert config.optimizer is not None and config.lr is not None
    wrapped, optimizer = fabric.setup(method, build_optimizer(config.optimizer, groups, config.lr))
    return Training(
        config=config,
        runtime=runtime,
        dataset=dataset,
        fabric=fabric,
        method=method,
        wrapped=wrapped,
        optimizer=optimizer,
        probe=probe,
        guard=StepGuard(method, optimizer),
        feed=ImageFeed(dataset.train.images, fabric.device, runtime.images_gib),
        labels=dataset.train.labels.to(fabric.device),
        usable=_usable_images(config, dataset),
        micro_batch=runtime.micro_batch,
    )


def batches(t: Training, epoch: int, first: int = 0) -> Iterator[Batch]:
    """This process's share of the batches of one epoch, from step `first` on.

    Order and views depend on (seed, epoch) and the image alone, so that shares of one batch, side by side in the order
    of the ranks, are that batch; only pixel noise is drawn by (seed, epoch, step, rank).
    """
    c, rank, share = t.config, t.fabric.global_rank, t.batch_size // t.fabric.world_size
    views = t.method.views(get_policy(c.policy, c.policy_changes), c.size)
    draws = draw_table(len(t.labels), views.num_views, c.seed, epoch).to(t.fabric.device)
    order = np.random.default_rng([c.seed, epoch]).permutation(t.usable)[: t.steps_per_epoch * t.batch_size]
    shares = torch.from_numpy(order).view(-1, t.fabric.world_size, share)[:, rank]  # [steps, share]
    on_device = shares.to(t.fabric.device)
    normalisation = t.method.backbone.normalisation
    for step, images in enumerate(t.feed.batches(shares[first:]), first):
        noise = torch.Generator(t.fabric.device).manual_seed(_step_seed(c.seed, epoch, step, rank))
        indices = on_device[step]
        made = views(images, draws[indices], noise)
        yield Batch(views=tuple(normalise(v, normalisation) for v in made), indices=indices, labels=t.labels[indices])


def _step_seed(seed: int, epoch: int, step: int, rank: int = 0) -> int:
    entropy = (seed, epoch, step, rank) if rank else (seed, epoch, step)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def train_epoch(
    t: Training,
    epoch: int,
    bar: tqdm,
    progress: Progress | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """One pass over the training images, or the rest of one; returns the epoch's means and the panel of its last batch.

    Args:
        progress: where this epoch stands; counted on.
        after_step: called when a step is done and counted, the place to save and to stop.
    """
    p = progress or Progress(epoch=epoch)
    outputs: dict[str, Tensor] = {}
    t.method.train()
    torch.manual_seed(_step_seed(t.config.seed, epoch, t.steps_per_epoch))  # for methods with dropout or draws inside
    p.restore_generators(t.fabric.device)
    shown = time.perf_counter()
    stream = Ahead(batches(t, epoch, p.step))
    for batch in stream:
        lr = t.lr(epoch * t.steps_per_epoch + p.step)
        made, terms, finite = train_step(t, batch, lr, stream.prepare)
        if finite:
            t.method.after_step(epoch * t.steps_per_epoch + p.step + 1, t.config.epochs * t.steps_per_epoch)
            p.count(terms)
            outputs = made
        else:
            p.skip(terms, lr)
        p.step += 1
        if time.perf_counter() - shown > BAR_SECONDS or p.step == t.steps_per_epoch:
            shown = time.perf_counter()
            skipped = {"skipped": str(p.skipped)} if p.skipped else {}
            bar.set_postfix({k: f"{v:.3f}" for k, v in p.means().items()} | skipped, refresh=False)
        bar.update()
        after_step()
    ended = {"first_loss": p.first_loss, "skipped_steps": p.skipped, "lr": lr}
    return {**p.means(), **ended, **embedding_panel(outputs)}


def train_step(
    t: Training, batch: Batch, lr: float, meanwhile: Callable[[], None] = lambda: None
) -> tuple[dict[str, Tensor], dict[str, Tensor], bool]:
    """One update of the method at the scheduled rate `lr`, then one of the online probe on the features it saw.

    Args:
        meanwhile: work for the device while the host waits to hear whether loss and gradient are finite.
    Returns:
        The whole batch's outputs, the terms of the loss, the probe's as `online_loss`, all without history, and whether
        the step was done: it is left out, and leaves nothing behind, if loss or gradient are not finite.
    """
    for group in t.optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    t.guard.remember()
    t.optimizer.zero_grad()
    outputs, terms = _gradient(t, batch)
    t.guard.look(terms["loss"])
    meanwhile()
    if not t.guard.finite():
        return outputs, {**terms, **t.guard.restore()}, False
    t.optimizer.step()
    return outputs, {**terms, "online_loss": t.probe.step(outputs["features"], gather(t.fabric, batch.labels))}, True


def _gradient(t: Training, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The step's gradient; where the device's memory does not suffice, the same step again in smaller parts.

    Raises:
        RuntimeError: it does not suffice with several processes, which would have to agree, or for 2 images.
    """
    pass_of = partial(step_gradient, t.wrapped, t.method.loss, batch, fabric=t.fabric)
    while True:
        try:
            with restore_on_error(t.guard.forget, t.fabric.device) if t.may_split else nullcontext():
                return pass_of(micro_batch=t.micro_batch)
        except torch.OutOfMemoryError:
            now = t.micro_batch or len(batch.indices)
            if not t.may_split or now < 4:
                raise RuntimeError(
                    f"the device's memory must hold one pass of {now} images, got none left; "
                    f"use a smaller --micro-batch, --size or --backbone"
                ) from None
            t.micro_batch = now // 2
        torch.cuda.empty_cache()
        warnings.warn(
            f"out of memory with {now} images of {t.config.size} px in one pass: going on with --micro-batch "
            f"{t.micro_batch}, which has the whole batch's gradient",
            RunWarning,
            stacklevel=2,
        )
