"""Ten classes of colour shapes on textured grounds, in CIFAR's place where no file can be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHAPE_CLASSES", "render_shapes"]

Array = NDArray[np.float32]
_KNOTS = 12  # of the texture, along a side
_CHUNK_PIXELS = 1 << 17


def _box(x: Array, y: Array) -> Any:
    return np.maximum(np.abs(x), np.abs(y))


def _star(x: Array, y: Array, radius: Array) -> Any:
    wedge = (np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5  # a tip at 0, a notch at ±36°
    notch_x, notch_y = 0.42 * np.cos(np.pi / 5), 0.42 * np.sin(np.pi / 5)
    along, aside = radius * np.cos(wedge), np.abs(radius * np.sin(wedge))
    return ((1.0 - along) * notch_y - aside * (1.0 - notch_x)) / np.hypot(1.0 - notch_x, notch_y)


def _checker(x: Array, y: Array, radius: Array) -> Any:
    across, down = (np.floor((value + 0.85) / 0.567) for value in (x, y))
    return np.where((across + down) % 2 == 0, 0.85 - _box(x, y), -1)


# distance to the edge of a shape at (x, y) and radius, positive inside, in a frame where the shape fills -1 … 1
_EDGES: dict[str, Callable[[Array, Array, Array], Any]] = {
    "disc": lambda x, y, r: 0.85 - r,
    "square": lambda x, y, r: 0.75 - _box(x, y),
    "triangle": lambda x, y, r: np.minimum(0.55 - y, 0.5 * (y + 0.95) - 0.866 * np.abs(x)),
    "star": _star,
    "cross": lambda x, y, r: np.minimum(np.maximum(0.28 - np.abs(x), 0.28 - np.abs(y)), 0.9 - _box(x, y)),
    "ring": lambda x, y, r: 0.17 - np.abs(r - 0.68),
    "crescent": lambda x, y, r: np.minimum(0.88 - r, np.hypot(x - 0.42, y) - 0.68),
    "heart": lambda x, y, r: 0.72 - np.hypot(x * 0.95, y - 0.10 + 0.55 * np.sqrt(np.abs(x) + 1e-3)),
    "bars": lambda x, y, r: np.minimum(0.85 - _box(x, y), 0.17 - np.abs((y + 0.85) % 0.566 - 0.283)),
    "checker": _checker,
}
SHAPE_CLASSES = tuple(_EDGES)


def render_shapes(
    labels: NDArray[np.int64], size: int, rng: np.random.Generator, rows: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Draw `rows` of a shape per label, [M, S, S, 3], each with a pose, colours, textures and a light of its own."""
    num = len(labels)
    draws = rng.uniform(-1, 1, (num, 10, 1, 1)).astype(np.float32)
    ground, shape = _colours(rng, num)
    knots = rng.standard_normal((num, 2, _KNOTS, _KNOTS), dtype=np.float32)
    images = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    for kind, name in enumerate(SHAPE_CLASSES):
        members = np.flatnonzero(labels[rows] == kind)
        for places in np.array_split(members, 1 + len(members) * size**2 // _CHUNK_PIXELS):
            of = rows[places]
            images[places] = _paint(name, draws[of], ground[of], shape[of], knots[of], size)
    return images


def _colours(rng: np.random.Generator, num: int) -> tuple[Array, Array]:
    """Ground and shape colour of each image: any hue for any class, well apart in one channel."""
    ground, shape = rng.uniform(0.1, 0.9, (num, 3)), rng.uniform(0.0, 1.0, (num, 3))
    rows, channel = np.arange(num), rng.integers(0, 3, num)
    shape[rows, channel] = (ground[rows, channel] + rng.uniform(0.35, 0.65, num)) % 1
    return ground.astype(np.float32), shape.astype(np.float32)


def _paint(name: str, draws: Array, ground: Array, shape: Array, knots: Array, size: int) -> NDArray[np.uint8]:
    """Images of one class from their draws [B, 10, 1, 1], colours [B, 3] and textures [B, 2, K, K]."""
    grid = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
    turn, zoom, right, down, squash, slant, pitch, phase, light_x, light = np.moveaxis(draws, 1, 0)
    column, row = grid[None, None, :] - 0.28 * right, grid[None, :, None] - 0.28 * down
    angle, scale = 0.5 * turn, 0.55 + 0.17 * zoom
    x = (np.cos(angle) * column + np.sin(angle) * row) / scale
    y = (np.cos(angle) * row - np.sin(angle) * column) / (scale * (1 + 0.15 * squash))
    cover = np.clip(_EDGES[name](x, y, np.hypot(x, y)) * scale * (size / 2) + 0.5, 0, 1)[..., None]
    place = (grid + 1) * ((_KNOTS - 1) / 2)
    weights = np.clip(1 - np.abs(place[:, None] - np.arange(_KNOTS, dtype=np.float32)), 0, 1)  # [S, K], linear
    texture = (weights @ knots @ weights.T)[..., None]
    stripes = np.sin((column + row * slant) * (8 + 5 * pitch) + 3 * phase)[..., None]
    back = ground[:, None, None] + 0.10 * texture[:, 0] + 0.07 * stripes
    front = shape[:, None, None] + 0.08 * texture[:, 1]
    mixed = back + (front - back) * cover
    mixed *= (1 + 0.25 * light_x * column + 0.15 * light)[..., None]
    return (np.clip(mixed, 0, 1) * 255).astype(np.uint8)
