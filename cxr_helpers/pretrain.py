"""Pretraining (and supervised training, and fine-tuning): a method on a data set as a `Task`, run or load.

Everything random comes from (seed, epoch, image) or (seed, epoch, step), so that a run that was interrupted and resumed
equals one that was not. No method is known here.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .augment import draw_table, get_policy, normalise
from .config import PretrainConfig, RuntimeConfig
from .data import Dataset, load_dataset
from .fields import require
from .loop import (
    BestEpoch,
    build_optimizer,
    discard_checkpoint,
    embedding_panel,
    gather,
    lr_at,
    make_fabric,
    place_images,
    seed_of,
    step_gradient,
    train_into,
    validate,
)
from .methods import Batch, Target, get_options, load_method
from .models import backbone_bytes, build_backbone, state_digest
from .probe import OnlineProbe, evaluating
from .recipes import find_run, kept_data, record_of, resolve, resolve_for, usable_rows
from .runs import Run, results_root
from .writing import write_bytes, write_tensors

__all__ = ["Pretext", "pretrain"]

VAL_LOOKS = 4  # draws under which a method's own figures look at each image of val


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
        dataset: the data; None loads `config.dataset` at `config.size`. Without any label in train nothing is probed.
        runtime: where and how.
        fresh: retrain from the start even if the run is there.
        on_epoch: called with the history after every epoch (the notebook's live figure).
    Returns:
        The run, its `status` trained, resumed or loaded.
    Raises:
        ValueError: a configuration that does not fit the method or the data. OSError: results cannot be written.
        LockedError: another process trains this run. RuntimeError: the device's memory is too small.
        DivergedError, StoppedError, ValueError: as `fit`.
    """
    resolve(config)  # a mistake in it comes before the data
    if dataset is None:
        dataset = load_dataset(config.dataset, config.size, runtime.root)
    asked, config = config, resolve_for(config, dataset)
    record = record_of(config, dataset)  # of the whole data: fraction and seed say which labels were kept
    run = find_run(results_root(runtime), record)
    dataset = kept_data(config, dataset)
    _check_fit(config, dataset)
    if config.batch_size != resolve(asked).batch_size:
        of = f"not the recipe's {resolve(asked).batch_size}, so that an epoch of {dataset.name} has 4 steps"
        warnings.warn(f"batch_size is {config.batch_size}, {of}", stacklevel=2)
    if run.finished and not fresh:
        discard_checkpoint(run)  # of a process that was killed after its last record
        return run
    task = Pretext(config, dataset, runtime)  # before the folder: what cannot be built leaves nothing behind
    return train_into(task, run, fresh=fresh, on_epoch=on_epoch)


def _check_fit(config: PretrainConfig, dataset: Dataset) -> None:
    """Refuse data that this configuration cannot be trained or probed on."""
    if dataset.size != config.size:
        raise ValueError(f"size must be the data set's {dataset.size} px, got {config.size}")
    usable = len(usable_rows(config, dataset))
    if config.epochs and (config.batch_size or 0) > usable:
        what = "labelled training images" if load_method(config.method).needs_labels else "training images"
        raise ValueError(f"batch_size must be at most the {usable} {what} of {dataset.name}, got {config.batch_size}")
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        labels = split.labels[split.labelled]
        if dataset.has_labels and not bool((labels[:1] != labels).any()):
            raise ValueError(f"the {name} split of {dataset.name} must hold at least two classes for AUC, got fewer")


class Pretext:
    """A method on a data set as a `Task`: model, optimizer, online probe and images, on their device.

    Args:
        config: resolved (`recipes.resolve`).
    Raises:
        ValueError: device, weights or the number of processes do not fit.
    """

    def __init__(self, config: PretrainConfig, dataset: Dataset, runtime: RuntimeConfig) -> None:
        c: Any = config  # resolved: no number is None
        self.config, self.dataset, self.runtime = c, dataset, runtime
        self.fabric = fabric = make_fabric(runtime)
        device = fabric.device
        if c.batch_size % fabric.world_size:
            got = f"{c.batch_size} for {fabric.world_size}"
            raise ValueError(f"batch_size must be a multiple of the number of processes, got {got}")
        policy, labels = get_policy(c.policy, c.policy_changes), dataset.train.labels
        channels = c.channels or dataset.channels
        normalisation = policy.normalisation.for_channels(channels)
        about: dict[str, Any] = {"channels": channels, "size": c.size, "normalisation": normalisation}
        backbone = build_backbone(c.backbone, init=c.init, seed=c.seed, **about)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(c.seed + 1)  # the head's own stream: the same for every initialisation of the backbone
            probe = OnlineProbe(backbone.feature_dim, dataset.task, dataset.num_outputs, labels, lr=c.online_lr)
            weight = None if dataset.task == "multiclass" else probe.to(device).pos_weight
            target = Target(task=dataset.task, num_outputs=dataset.num_outputs, positive_weight=weight)
            method = load_method(c.method)(backbone, get_options(c.method, c.options), target)
        kept = "last for a method without a classifier of its own"
        require(c.keep == "last" or method.classifier() is not None, "keep", kept, c.keep)
        self.best = BestEpoch() if c.keep == "best" else None
        method = method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if fabric.world_size > 1 and device.type == "cuda":  # torch has it for GPUs alone
            method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
        if runtime.compile:
            method.backbone.compile()
        groups = method.parameter_groups(weight_decay=c.weight_decay, backbone_lr_factor=c.backbone_lr_factor)
        self.model, self.optimizer = fabric.setup(method, build_optimizer(c.optimizer, groups, c.lr))
        self.method, self.probe = method, probe.to(device) if dataset.has_labels else None
        self.views, self.labels, self.usable = (
            method.views(policy, c.size),
            labels.to(device),
            usable_rows(config, dataset),
        )
        self.images = place_images(dataset.train.images, device, runtime.images_gib)
        self.steps_per_epoch = len(self.usable) // c.batch_size
        self.stateful: dict[str, Any] = {"method": method, "optimizer": self.optimizer, "probe": probe}
        self.stateful |= {"best": self.best} if self.best is not None else {}

    def lr(self, number: int) -> float:
        """Scheduled rate of a step before the groups' factors."""
        c, total = self.config, self.config.epochs * self.steps_per_epoch
        warmup = min(round(c.warmup_epochs * self.steps_per_epoch), total // 3)
        return lr_at(number, base_lr=c.lr * c.batch_size / 256, warmup_steps=warmup, total_steps=total)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """This process's share of the batches of one epoch, from step `first` on.

        Order, views and draws depend on (seed, epoch) and the image alone, so that shares of one batch, side by side in
        the order of the ranks, are that batch; only pixel noise is drawn by (seed, epoch, step, rank).
        """
        self.method.train()
        torch.manual_seed(seed_of(self.config.seed, epoch, self.steps_per_epoch))  # for methods that draw in a step
        return self._batches(epoch, first)  # a generator, which would seed only when the first batch is asked for

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        seed, size, device = self.config.seed, self.config.batch_size, self.fabric.device
        rank, world = self.fabric.global_rank, self.fabric.world_size
        order = np.random.default_rng([seed, epoch]).permutation(self.usable)[: self.steps_per_epoch * size]
        shares = torch.from_numpy(order).view(-1, world, size // world)[:, rank]  # [steps, share]
        rows, places, draws = shares.to(device), shares.to(self.images.device), self._draws(len(self.labels), epoch)
        for step in range(first, self.steps_per_epoch):  # of this process's shares
            noise = seed_of(seed, epoch, step, *([rank] if rank else []))
            images = self.images[places[step]].to(device, non_blocking=True)
            yield self._batch(images, rows[step], self.labels, draws, noise)

    def _draws(self, count: int, epoch: int) -> tuple[Tensor, Tensor]:
        """By image, what its views and what the method itself draws in an epoch."""
        of_views = draw_table(count, self.views.num_views, self.config.seed, epoch)
        own = torch.Generator().manual_seed(seed_of(self.config.seed, epoch, branch=(1,)))
        of_method = torch.rand(count, self.method.num_draws, generator=own)
        return of_views.to(self.fabric.device), of_method.to(self.fabric.device)

    def _batch(self, images: Tensor, rows: Tensor, labels: Tensor, draws: tuple[Tensor, Tensor], noise: int) -> Batch:
        made = self.views(images, draws[0][rows], torch.Generator(self.fabric.device).manual_seed(noise))
        to = self.method.backbone  # which may take colour where films are grey
        views = tuple(normalise(v.expand(-1, to.in_channels, -1, -1), to.normalisation) for v in made)
        return Batch(views=views, indices=rows, labels=labels[rows], draws=draws[1][rows])

    def step(self, batch: Batch, number: int) -> dict[str, Tensor | float]:
        """One update of the method, then one of the online probe on the features it saw."""
        rate, steps, micro = self.lr(number), self.steps_per_epoch, self.runtime.micro_batch
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        self.optimizer.zero_grad()
        how: dict[str, Any] = {"fabric": self.fabric, "micro_batch": micro, "pairwise": self.method.pairwise}
        try:
            outputs, terms = step_gradient(self.model, self.method.loss, batch, **how)
        except torch.OutOfMemoryError:
            count = micro or len(batch.indices)
            raise RuntimeError(
                f"the device's memory must hold one pass of {count} images, got too little: use a smaller --micro-batch"
            ) from None
        norm = nn.utils.get_total_norm([p.grad for p in self.method.parameters() if p.grad is not None])
        self.optimizer.step()
        self.method.after_step(number + 1, self.config.epochs * steps)
        row: dict[str, Tensor | float] = {**terms, "gradient_norm": norm}
        if self.probe is not None:
            row["online_loss"] = self.probe.step(outputs["features"], gather(self.fabric, batch.labels))
        row |= {"first_loss": float(terms["loss"])} if number % steps == 0 else {}
        return {**row, "lr": rate, **(embedding_panel(outputs) if (number + 1) % steps == 0 else {})}

    def measure(self, row: Mapping[str, float]) -> dict[str, float]:
        """Speed, and on val, when it is its turn and after the last epoch, what the features are worth."""
        figures = {"images_per_second": self.steps_per_epoch * self.config.batch_size / row["train_seconds"]}
        own = self.best is not None  # then in every epoch: which one is best is no matter of how often one looks
        if own or row["epoch"] % self.runtime.measure_every == 0 or row["epoch"] == self.config.epochs:
            bank = self.runtime.knn_bank
            figures |= validate(self.method, self.probe, self.dataset, self.fabric, knn_bank=bank, own=own)
            if self.probe is None or self.method.measures_val:
                figures |= self._val_figures()
        if self.best is not None:
            (figure,) = (value for name, value in figures.items() if name.startswith("head_"))
            self.best.offer(self.method, int(row["epoch"]), figure)
        return figures

    @torch.no_grad()
    def _val_figures(self) -> dict[str, float]:
        """The method's own loss and figures on val, after every epoch under the same few draws of each image."""
        val, device, size = self.dataset.val, self.fabric.device, self.config.batch_size
        labels, seen = val.labels.to(device), defaultdict[str, list[Tensor]](list)
        with evaluating(self.method), self.fabric.autocast():
            for look in range(VAL_LOOKS):
                draws = self._draws(len(val), look)
                for i, rows in enumerate(torch.arange(len(val)).tensor_split(-(-len(val) // size))):
                    noise = seed_of(self.config.seed, look, i)
                    batch = self._batch(val.images[rows].to(device), rows.to(device), labels, draws, noise)
                    outputs = self.method(batch)
                    loss = self.method.loss(outputs)["loss"].expand(len(rows))
                    for name, values in {"loss": loss, **self.method.val_figures(outputs)}.items():
                        seen[name].append(values.float().flatten())
        return {f"val_{name}": float(torch.cat(parts).nanmean()) for name, parts in seen.items()}

    def about(self) -> dict[str, Any]:
        """Where the images were, and the rates of the lowest and the top layers."""
        c, factors = self.config, [group["lr_factor"] for group in self.optimizer.param_groups]
        peak_lr = [c.batch_size * c.lr * factor / 256 for factor in (min(factors), max(factors))]
        return {"images": f"in the memory of {self.images.device.type}", "peak_lr": peak_lr}

    def finish(self, run: Run) -> dict[str, Any]:
        """Write the encoder and what else was learnt; returned are the encoder's digest, and which epoch was kept."""
        about: dict[str, Any] = {}
        if self.best is not None and self.best.epoch:
            self.method.load_state_dict(self.best.weights)
            about |= {"kept_epoch": self.best.epoch}
        write_bytes(run.weights, backbone_bytes(self.method.backbone))
        if (classifier := self.method.classifier()) is not None:
            write_tensors(run.path / "head.safetensors", classifier.state_dict())
        if self.method.measures_val:  # what stands behind the encoder says what it has learnt
            write_tensors(run.path / "network.safetensors", self.method.state_dict())
        digest = state_digest(self.method.backbone.net.state_dict())  # names the weights where the file is gone
        return about | {"backbone_sha256": digest}
