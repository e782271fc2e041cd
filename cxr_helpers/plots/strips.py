"""Views of one image and their differences from it, side by side in one compressed picture, and their histograms."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .images import grey_tile, reduced
from .views import difference_tile, histogram

__all__ = ["compressed_tiles", "histogram_heights", "view_strip"]

TILE_PX = 224  # larger tiles are reduced: a reader sees no more of them
_QUALITY = 80  # of WebP: below it blocks show in the differences' even greys


def compressed_tiles(tiles: np.ndarray) -> bytes:
    """A picture uint8 [H, W, 3] as WebP."""
    buffer = io.BytesIO()
    Image.fromarray(tiles).save(buffer, "WEBP", quality=_QUALITY, method=4)
    return buffer.getvalue()


def view_strip(original: Tensor, views: Tensor) -> tuple[bytes, int]:
    """A row of views above a row of view − original, without gaps, so that one picture holds all stops of a slider.

    Args:
        original: float [C, S, S] in [0, 1], at the views' size.
        views: float [K, C, S, S] in [0, 1].

    Returns:
        WebP bytes, and the side of a tile in px.
    """
    small = reduced(torch.cat([original[None], views]), TILE_PX)
    rows = [[grey_tile(view) for view in small[1:]], [difference_tile(view, small[0]) for view in small[1:]]]
    return compressed_tiles(np.concatenate([np.concatenate(row, axis=1) for row in rows])), small.shape[-1]


def histogram_heights(images: Tensor) -> list[list[int]]:
    """Square roots of the shares of pixels per bin of [0, 1], in thousandths; images [K, C, S, S]."""
    return [[round(1000 * float(height)) for height in histogram(image)] for image in images]
