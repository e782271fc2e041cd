"""Views of one image side by side in one compressed picture, their differences from it, and their histograms."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .images import grey_tile, reduced
from .views import difference_tile, histogram

__all__ = ["compressed_tiles", "histogram_heights", "view_strips"]

TILE_PX = 224  # larger tiles are reduced: a reader sees no more of them
_LOSSLESS_PX = 96  # tiles up to this side keep every pixel: they are shown enlarged
_QUALITY = 85  # of WebP, for larger ones: below it blocks show in the differences


def compressed_tiles(tiles: np.ndarray) -> bytes:
    """A row of square tiles, uint8 [S, K · S, 3], as WebP."""
    buffer = io.BytesIO()
    kept = tiles.shape[0] <= _LOSSLESS_PX
    Image.fromarray(tiles).save(buffer, "WEBP", lossless=kept, quality=100 if kept else _QUALITY, method=4)
    return buffer.getvalue()


def view_strips(original: Tensor, views: Tensor) -> tuple[bytes, bytes]:
    """A row of views and a row of view − original, without gaps: each holds every stop of a slider.

    Args:
        original: float [C, S, S] in [0, 1], at the views' size.
        views: float [K, C, S, S] in [0, 1].

    Returns:
        Two WebP pictures of K tiles.
    """
    small = reduced(torch.cat([original[None], views]), TILE_PX)
    shown = np.concatenate([grey_tile(view) for view in small[1:]], axis=1)
    differences = np.concatenate([difference_tile(view, small[0]) for view in small[1:]], axis=1)
    return compressed_tiles(shown), compressed_tiles(differences)


def histogram_heights(images: Tensor) -> list[list[int]]:
    """Square roots of the shares of pixels per bin of [0, 1], in thousandths; images [K, C, S, S]."""
    return [[round(1000 * float(height)) for height in histogram(image)] for image in images]
