"""Where the training images lie, and how a step gets its batch without waiting for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

__all__ = ["ImageFeed"]

SHARE = 0.5  # of the device's free memory, for the images; the rest is for the model and its activations
GIB = 2**30


class ImageFeed:
    """Images of a split on the training device if they fit, otherwise in host memory and copied one batch ahead.

    A batch that has to travel is gathered into pinned memory and copied on a stream of its own while the device still
    works on the batch before it. Two pinned buffers take turns.

    Args:
        images: uint8 [N, C, S, S] on the CPU.
        device: where batches are wanted.
        limit_gib: most memory of the device that images may take, in GiB; None takes half of what is free.
    """

    def __init__(self, images: Tensor, device: torch.device, limit_gib: float | None = None) -> None:
        self.device, self.limit = device, _limit(device, limit_gib)
        self.resident = images.nbytes <= self.limit
        self.images = images.to(device) if self.resident else images

    def __str__(self) -> str:
        """Where the images are and why, for the run's record."""
        size = f"{self.images.nbytes / GIB:.2f} GiB"
        if self.resident:
            return f"{size} in the memory of {self.device.type}"
        limit = f"{self.limit / GIB:.2f} GiB"
        return f"{size} in host memory, copied a batch ahead: the limit on {self.device.type} is {limit}"

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Images [b, C, S, S] on the device for each tensor of indices [b] (int64, on the CPU)."""
        if self.resident:
            for rows in indices:
                yield self.images[rows.to(self.device, non_blocking=True)]
            return
        cuda = self.device.type == "cuda"
        staged = _Staging(self.images, self.device) if cuda else _Plain(self.images, self.device)
        ahead = None
        for rows in indices:
            ready, ahead = ahead, staged.send(rows)
            if ready is not None:
                yield staged.receive(ready)
        if ahead is not None:
            yield staged.receive(ahead)


class _Plain:
    """Copies that end before they return, for devices without streams."""

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images, self.device = images, device

    def send(self, rows: Tensor) -> Tensor:
        return self.images[rows].to(self.device)

    def receive(self, batch: Tensor) -> Tensor:
        return batch


class _Staging(_Plain):
    """Copies through two pinned buffers on a stream of their own."""

    def __init__(self, images: Tensor, device: torch.device) -> None:
        super().__init__(images, device)
        self.stream = torch.cuda.Stream(device)
        self.buffers: list[Tensor] = []
        self.copied: list[torch.cuda.Event] = []
        self.turn = 0

    def send(self, rows: Tensor) -> Tensor:
        if len(self.buffers) < 2 or len(self.buffers[self.turn]) < len(rows):
            shape = (len(rows), *self.images.shape[1:])
            self.buffers = [torch.empty(shape, dtype=self.images.dtype, pin_memory=True) for _ in range(2)]
            self.copied = [torch.cuda.Event() for _ in range(2)]
        buffer = self.buffers[self.turn][: len(rows)]
        self.copied[self.turn].synchronize()  # of two batches ago: over long since
        torch.index_select(self.images, 0, rows, out=buffer)
        with torch.cuda.stream(self.stream):
            batch = buffer.to(self.device, non_blocking=True)
            self.copied[self.turn].record(self.stream)
        self.turn = 1 - self.turn
        return batch

    def receive(self, batch: Tensor) -> Tensor:
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        batch.record_stream(current)  # its memory is not given away before the current stream is done with it
        return batch


def _limit(device: torch.device, limit_gib: float | None) -> float:
    if device.type == "cpu" and limit_gib is None:
        return float("inf")  # they are in host memory as it is
    if limit_gib is not None:
        return limit_gib * GIB
    if device.type == "cuda":
        return SHARE * torch.cuda.mem_get_info(device)[0]
    return SHARE * torch.mps.recommended_max_memory()
