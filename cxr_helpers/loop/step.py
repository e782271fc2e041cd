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

__all__ = ["gather", "restore_on_error", "split_batch", "step_gradient"]

Outputs = dict[str, Tensor]


def step_gradient(
    model: Any,
    loss: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    batch: Batch,
    *,
    fabric: Fabric,
    micro_batch: int | None = None,
) -> tuple[Outputs, dict[str, Tensor]]:
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
    Returns:
        The outputs of the whole batch of all processes [B, ...], without history, and the loss's terms.
    """
    parts = split_batch(batch, micro_batch)
    if len(parts) == 1 and fabric.world_size == 1:
        outputs = model(batch)
        terms = loss(outputs)
        fabric.backward(terms["loss"])
        return {name: value.detach() for name, value in outputs.items()}, _detached(terms)
    states: list[list[Tensor]] = []
    if len(parts) == 1:
        own = model(batch)
    else:
        with torch.no_grad(), _batch_norm(model, momentum=0.0):
            own = _concatenated([_forward(model, part, states, fabric.device) for part in parts])
    whole = {k: gather(fabric, v.detach()).requires_grad_(v.is_floating_point()) for k, v in own.items()}
    terms = loss(whole)
    terms["loss"].backward()  # stops at the embeddings
    gradients = {k: _own_rows(fabric, v.grad) for k, v in whole.items() if v.grad is not None}
    if len(parts) == 1:
        _backward(fabric, own, gradients)
    else:
        _backward_in_parts(model, parts, gradients, states, fabric)
    return {name: value.detach() for name, value in whole.items()}, _detached(terms)


def split_batch(batch: Batch, micro_batch: int | None) -> list[Batch]:
    """The batch in as few parts of at most `micro_batch` images as will do, of sizes that differ by at most one."""
    size = len(batch.indices)
    if micro_batch is None or micro_batch >= size:
        return [batch]
    count = -(-size // micro_batch)
    columns = [value.tensor_split(count) for value in (*batch.views, batch.indices, batch.labels)]
    return [Batch(views=tuple(part[:-2]), indices=part[-2], labels=part[-1]) for part in zip(*columns, strict=True)]


def gather(fabric: Fabric, value: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks: [b, ...] to [B, ...], without history."""
    if fabric.world_size == 1:
        return value
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(parts, value.contiguous())
    return torch.cat(parts)


@contextmanager
def restore_on_error(forget: Callable[[], None], device: torch.device) -> Iterator[None]:
    """If a pass breaks off, `forget` is called and torch's generators are put back: as if it had not begun."""
    states = _random_state(device)
    try:
        yield
    except BaseException:
        forget()
        _set_random_state(states, device)
        raise


def _own_rows(fabric: Fabric, gradient: Tensor) -> Tensor:
    """This process's rows, scaled up by what averaging the parameters' gradients over processes divides by."""
    if fabric.world_size == 1:
        return gradient
    return gradient.chunk(fabric.world_size)[fabric.global_rank] * fabric.world_size


def _forward(model: Any, part: Batch, states: list[list[Tensor]], device: torch.device) -> Outputs:
    states.append(_random_state(device))
    return model(part)


def _backward_in_parts(
    model: Any, parts: list[Batch], gradients: Outputs, states: list[list[Tensor]], fabric: Fabric
) -> None:
    rows = [len(part.indices) for part in parts]
    shares = {name: value.split(rows) for name, value in gradients.items()}
    with _batch_norm(model, momentum=None):
        for i, part in enumerate(parts):
            _set_random_state(states[i], fabric.device)  # dropout falls where it fell in the first pass
            with _unsynchronised(model, fabric, i < len(parts) - 1):
                _backward(fabric, model(part), {name: share[i] for name, share in shares.items()})


def _unsynchronised(model: Any, fabric: Fabric, enabled: bool) -> AbstractContextManager[Any]:
    """Processes exchange gradients once per step, with the last part's."""
    return fabric.no_backward_sync(model, enabled=enabled) if fabric.world_size > 1 else nullcontext()


def _backward(fabric: Fabric, outputs: Outputs, gradients: Outputs) -> None:
    """Send the outputs' gradients back through the network; outputs that the loss does not use have none."""
    fabric.backward(torch.stack([(outputs[name] * value).sum() for name, value in gradients.items()]).sum())


@contextmanager
def _batch_norm(model: nn.Module, momentum: float | None) -> Iterator[None]:
    """Running averages that stand still (momentum 0), or that move once in the end, by the mean of what came (None)."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    kept = [(m.momentum, [b.clone() for b in _statistics(m)]) for m in layers]
    for layer in layers:
        layer.momentum = momentum
        if momentum is None:  # torch then keeps the mean of all that came since a count of 0
            _statistics(layer)[2].zero_()
    try:
        yield
    finally:
        for layer, (usual, (mean, variance, count)) in zip(layers, kept, strict=True):
            layer.momentum = usual
            now_mean, now_variance, now_count = _statistics(layer)
            moved = layer.training and momentum is None
            weight = 0.0 if not moved else 1 / (float(count) + 1) if usual is None else usual
            now_mean.copy_(mean.lerp(now_mean, weight))
            now_variance.copy_(variance.lerp(now_variance, weight))
            now_count.copy_(count + int(moved))


def _statistics(layer: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance, count = layer.running_mean, layer.running_var, layer.num_batches_tracked
    assert mean is not None and variance is not None and count is not None
    return mean, variance, count


def _random_state(device: torch.device) -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def _set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)


def _concatenated(parts: list[Outputs]) -> Outputs:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _detached(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in terms.items()}
