"""Small images that several tests share."""

from __future__ import annotations

import torch
from torch import Tensor


def smooth_images(count: int = 3, size: int = 64, channels: int = 1) -> Tensor:
    """Float images of a few broad waves, different in every direction, in [.1, .9]."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    waves = torch.zeros(count, channels, size, size)
    for _ in range(6):
        frequency = torch.randn(count, channels, 2, 1, 1, generator=generator) * 5
        phase = 6 * torch.rand(count, channels, 1, 1, generator=generator)
        waves += torch.sin(frequency[:, :, 0] * x + frequency[:, :, 1] * y + phase)
    low, high = waves.amin((1, 2, 3), keepdim=True), waves.amax((1, 2, 3), keepdim=True)
    return 0.1 + 0.8 * (waves - low) / (high - low)


def as_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def random_bytes(count: int, size: int = 16, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def inside(images: Tensor, border: int = 4) -> Tensor:
    return images[..., border:-border, border:-border]


def full(value: float, count: int = 3) -> Tensor:
    return torch.full((count,), value)
