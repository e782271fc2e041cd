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
    works on the batch before it.

    Args:
        images: uint8 [N, C, S, S] on the CPU.
        device: where batches are wanted.
        limit_gib: most memory of the device that images may take, in GiB; None takes half of what is free.
    """

    def __init__(self, images: Tensor, device: torch.device, limit_gib: float | None = None) -> None:
        self.device, self.limit = device, _free(device) if limit_gib is None else limit_gib * GIB
        self.resident = images.nbytes <= self.limit
        self.images = images.to(device) if self.resident else images
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" and not self.resident else None

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
            yield from (self.images[rows.to(self.device, non_blocking=True)] for rows in indices)
            return
        ahead = None
        for rows in indices:
            ready, ahead = ahead, self._send(rows)
            if ready is not None:
                yield self._receive(ready)
        if ahead is not None:
            yield self._receive(ahead)

    def _send(self, rows: Tensor) -> Tensor:
        if self.stream is None:
            return self.images[rows].to(self.device)
        shape = (len(rows), *self.images.shape[1:])
        buffer = torch.empty(shape, dtype=self.images.dtype, pin_memory=True)  # torch reuses it when it has been copied
        torch.index_select(self.images, 0, rows, out=buffer)
        with torch.cuda.stream(self.stream):
            return buffer.to(self.device, non_blocking=True)

    def _receive(self, batch: Tensor) -> Tensor:
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            batch.record_stream(current)  # its memory is not given away before the current stream is done with it
        return batch


def _free(device: torch.device) -> float:
    """Bytes that images may take of the device's memory; of the host's, where they are as it is, all."""
    if device.type == "cuda":
        return SHARE * torch.cuda.mem_get_info(device)[0]
    return SHARE * torch.mps.recommended_max_memory() if device.type == "mps" else float("inf")
