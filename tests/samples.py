"""Small images and scores that several tests share, and what an error message must look like."""

import numpy as np
import torch
from torch import Tensor

from cxr_helpers.augment import SPECS, AugmentationPolicy, range_of


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


def every_operation() -> AugmentationPolicy:
    """A policy in which no operation is off: every number at the strong end of its range."""
    ends = {name: range_of(name)[0 if name.endswith(("_min", "_threshold")) else 1] for name in SPECS}
    return AugmentationPolicy(**ends)  # type: ignore[arg-type]


def scored(task: str, num: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores that know a little of them, with many ties: one label, five labels or four classes."""
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        labels = rng.integers(0, 4, num)
        scores = rng.dirichlet(np.ones(4), num) + 0.3 * np.eye(4)[labels]
        return labels, scores / scores.sum(axis=1, keepdims=True)
    shares = np.array([0.4]) if task == "binary" else np.linspace(0.05, 0.5, 5)
    labels = (rng.random((num, len(shares))) < shares).astype(np.int64)
    scores = (rng.random(labels.shape) * 0.8 + 0.2 * labels).round(2)
    return (labels[:, 0], scores[:, 0]) if task == "binary" else (labels, scores)


def one_sentence(error: BaseException) -> str:
    """What an error says, once it is a sentence a user can act on."""
    said = str(error)
    assert said.isprintable() and 20 < len(said) < 900, said
    return said
