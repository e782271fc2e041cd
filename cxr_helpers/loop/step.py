"""The gradient of one step: of the whole batch, whatever part of it one pass or one process can hold.

A contrastive loss compares every image of the batch with every other, so the mean of the losses of parts is not the
loss of the whole. `step_gradient` therefore splits the chain rule, not the loss: embeddings of all parts first, then
the loss and its gradient with respect to them, then that gradient back through the network part by part. Source of
the technique: gradient caching, arXiv 2101.06983.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..methods import Batch

__all__ = ["gather", "random_state", "set_random_state", "split_batch", "step_gradient"]

BATCH_NORM = nn.modules.batchnorm._BatchNorm  # of every dimension, SyncBatchNorm too
Tensors = dict[str, Tensor]
Loss = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def step_gradient(
    model: Any, loss: Loss, batch: Batch, *, fabric: Fabric, micro_batch: int | None = None, pairwise: bool = True
) -> tuple[Tensors, Tensors]:
    """Add to the parameters' `.grad` the gradient of the loss of the whole batch.

    With `micro_batch`, activations are kept for that many images at a time: each part passes the network twice, once
    for its embeddings and once for its gradient. With several processes, `batch` is this process's share and the loss
    sees the embeddings of all. Equal to the plain step but for BatchNorm, whose statistics are then those of a part;
    its running averages move once per step, by the mean of the parts' statistics.

    Args:
        model: the method as Fabric set it up; `forward(batch)` gives per-sample tensors [b, ...].
        loss: of the whole batch's outputs, `{"loss": scalar, other terms}`.
        batch: normalised views, indices and labels of this process, b images.
        micro_batch: images of one pass, at least 2; None takes the batch whole.
        pairwise: False where the loss is a mean over images: each part then passes once, with a loss of its own.
    Returns:
        The outputs of the whole batch of all processes [B, ...], without history, and the loss's terms.
    """
    parts, device, world = split_batch(batch, micro_batch), fabric.device, fabric.world_size
    if not pairwise or (len(parts) == 1 and world == 1):
        return _each_for_itself(model, loss, parts, fabric)
    twice = len(parts) > 1
    with _batch_norm(model, momentum=0.0) if twice else nullcontext(), torch.set_grad_enabled(not twice):
        first = [(random_state(device), model(part)) for part in parts]
    own = _concatenated([outputs for _, outputs in first])
    whole = {k: gather(fabric, v.detach()).requires_grad_(v.is_floating_point()) for k, v in own.items()}
    terms = loss(whole)
    terms["loss"].backward()  # stops at the embeddings
    sizes = [len(part.indices) for part in parts]
    gradients = {k: v.grad for k, v in whole.items() if v.grad is not None}  # of what the loss uses
    own = {k: v.chunk(world)[fabric.global_rank] * world for k, v in gradients.items()}  # the mean divides by world
    shares = {k: v.split(sizes) for k, v in own.items()}
    with _batch_norm(model, momentum=None) if twice else nullcontext():
        for i, (part, (state, outputs)) in enumerate(zip(parts, first, strict=True)):
            with _unsynchronised(model, fabric, part is not parts[-1]):
                if twice:
                    set_random_state(state, device)  # dropout falls where it fell in the first pass
                    outputs = model(part)
                sums = [(outputs[name] * share[i]).sum() for name, share in shares.items()]
                fabric.backward(torch.stack(sums).sum())
    return _detached(whole), _detached(terms)


def split_batch(batch: Batch, micro_batch: int | None) -> list[Batch]:
    """The batch in as few parts of at most `micro_batch` images as will do, of sizes that differ by at most one."""
    size = len(batch.indices)
    if micro_batch is None or micro_batch >= size:
        return [batch]
    count = -(-size // micro_batch)
    views = zip(*(view.tensor_split(count) for view in batch.views), strict=True)
    draws = [None] * count if batch.draws is None else batch.draws.tensor_split(count)
    rest = (batch.indices.tensor_split(count), batch.labels.tensor_split(count), draws)
    return [Batch(*part) for part in zip(views, *rest, strict=True)]


def gather(fabric: Fabric, value: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks: [b, ...] to [B, ...], without history."""
    if fabric.world_size == 1:
        return value
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def random_state(device: torch.device) -> list[Tensor]:
    """The states of torch's own generators: the CPU's, and the device's if it has one."""
    own = [] if device.type == "cpu" else [torch.get_device_module(device).get_rng_state()]
    return [torch.get_rng_state(), *own]


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    """Put torch's own generators where `random_state` found them."""
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.get_device_module(device).set_rng_state(state)


def _each_for_itself(model: Any, loss: Loss, parts: list[Batch], fabric: Fabric) -> tuple[Tensors, Tensors]:
    """Parts that need not meet (or a whole batch): one pass each, their losses weighted by their images."""
    count = sum(len(part.indices) for part in parts)
    outputs, shares = [], []
    with _batch_norm(model, momentum=None) if len(parts) > 1 else nullcontext():
        for part in parts:
            with _unsynchronised(model, fabric, part is not parts[-1]):
                made = model(part)
                terms = {k: v * (len(part.indices) / count) for k, v in loss(made).items()}
                fabric.backward(terms["loss"])
            outputs.append(_detached(made))
            shares.append(_detached(terms))
    whole = {k: gather(fabric, v) for k, v in _concatenated(outputs).items()}
    sums = {k: torch.stack([share[k] for share in shares]).sum() for k in shares[0]}
    averaged: Any = fabric.all_reduce(sums, reduce_op="mean")
    return whole, averaged


def _unsynchronised(model: Any, fabric: Fabric, enabled: bool) -> AbstractContextManager[Any]:
    """Processes exchange gradients once per step, with the last part's."""
    return fabric.no_backward_sync(model, enabled=enabled) if fabric.world_size > 1 else nullcontext()


@contextmanager
def _batch_norm(model: nn.Module, momentum: float | None) -> Iterator[None]:
    """Running averages that stand still (momentum 0), or that move once in the end, by the mean of what came (None)."""
    layers: list[Any] = [m for m in model.modules() if isinstance(m, BATCH_NORM) and m.track_running_stats]
    kept = [(m.momentum, [b.clone() for b in m.buffers()]) for m in layers]  # mean, variance, count
    for layer in layers:
        layer.momentum = momentum
        if momentum is None:  # torch then keeps the mean of all that came since a count of 0
            layer.num_batches_tracked.zero_()
    try:
        yield
    finally:
        for layer, (usual, (mean, variance, count)) in zip(layers, kept, strict=True):
            layer.momentum = usual
            moved = layer.training and momentum is None
            weight = 0.0 if not moved else 1 / (float(count) + 1) if usual is None else usual
            layer.running_mean.copy_(mean.lerp(layer.running_mean, weight))
            layer.running_var.copy_(variance.lerp(layer.running_var, weight))
            layer.num_batches_tracked.copy_(count + int(moved))


def _concatenated(parts: list[Tensors]) -> Tensors:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _detached(values: Mapping[str, Tensor]) -> Tensors:
    return {name: value.detach() for name, value in values.items()}
