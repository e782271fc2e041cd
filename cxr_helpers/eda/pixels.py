"""Pixels: mean, spread and histograms per split and class, all from one exact 256-bin histogram per image.

No copy of a split is ever made in floating point: images pass in blocks, and what stays is [N, C, 256] counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import Dataset
from .labels import NONE, positives
from .options import EDA

__all__ = ["ALL", "Histograms", "image_histograms", "level_table", "pixel_histograms", "pixel_table"]

ALL = "all images"
LEVELS = np.arange(256) / 255  # what a stored byte means, in [0, 1]
Histograms = dict[str, NDArray[np.int32]]


def image_histograms(images: Tensor) -> NDArray[np.int32]:
    """How many pixels of each image and channel have each byte value.

    Args:
        images: uint8 [N, C, S, S].

    Returns:
        [N, C, 256], every row adding up to S².
    """
    n, channels = images.shape[:2]
    counts = np.zeros((n, channels, 256), dtype=np.int32)
    for start in range(0, n, EDA.image_block):
        block = images[start : start + EDA.image_block].cpu()
        rows = torch.arange(len(block) * channels).reshape(-1, 1)  # one histogram per image and channel
        values = block.reshape(len(rows), -1).long() + 256 * rows
        found = torch.bincount(values.flatten(), minlength=256 * len(rows))
        counts[start : start + len(block)] = found.reshape(len(block), channels, 256).numpy()
    return counts


def pixel_histograms(dataset: Dataset) -> Histograms:
    """`image_histograms` of every split by its name: read the images once, ask as often as needed."""
    return {name: image_histograms(split.images) for name, split in dataset.splits.items()}


def _members(dataset: Dataset, histograms: Histograms) -> Iterator[tuple[str, str, NDArray[np.int32]]]:
    """(split, class, histograms of its images): all images first, then each class's."""
    for name, split in dataset.splits.items():
        yield name, ALL, histograms[name]
        counts = histograms[name][split.labelled.cpu().numpy()]
        columns = positives(split, len(dataset.class_names))
        if dataset.task == "multilabel":
            yield name, NONE, counts[~columns.any(axis=1)]
        for label, column in zip(dataset.class_names, columns.T, strict=True):
            yield name, label, counts[column]


def _channels(dataset: Dataset) -> tuple[str, ...]:
    return ("grey",) if dataset.channels == 1 else ("red", "green", "blue")


def pixel_table(dataset: Dataset, histograms: Histograms) -> pd.DataFrame:
    """Moments of the pixels in [0, 1], per split, class and channel; classes without an image have no row.

    Returns:
        `split, class, channel, images, mean, variance, std` (over all pixels), `mean_sd` (of the images' means: how
        much brightness differs between films), `contrast` and `contrast_sd` (mean and sd of the images' standard
        deviations), `black`, `white` (shares of pixels at 0 and at 255).
        variance = mean_sd² + mean of the images' variances.
    """
    rows = []
    for name, label, counts in _members(dataset, histograms):
        for c, channel in enumerate(_channels(dataset) if len(counts) else ()):
            shares = counts[:, c] / counts[:, c].sum(axis=1, keepdims=True)  # [N, 256]
            means, squares = shares @ LEVELS, shares @ LEVELS**2
            variance = squares.mean() - means.mean() ** 2
            contrasts = np.sqrt(np.maximum(squares - means**2, 0))
            rows.append(
                {
                    "split": name,
                    "class": label,
                    "channel": channel,
                    "images": len(counts),
                    "mean": means.mean(),
                    "variance": variance,
                    "std": np.sqrt(variance),
                    "mean_sd": means.std(),
                    "contrast": contrasts.mean(),
                    "contrast_sd": contrasts.std(),
                    "black": shares[:, 0].mean(),
                    "white": shares[:, -1].mean(),
                }
            )
    return pd.DataFrame(rows)


def level_table(dataset: Dataset, histograms: Histograms) -> pd.DataFrame:
    """Histograms of the pixels per split and class, channels together.

    Returns:
        `split, class, level` (middle of the bin, in [0, 1]) and `share` of the pixels in it; the bins of a split and
        class add up to 1.
    """
    width = 256 // EDA.level_bins
    middles = LEVELS.reshape(-1, width).mean(axis=1)
    parts = []
    for name, label, counts in _members(dataset, histograms):
        if len(counts):
            levels = counts.sum(axis=(0, 1)).reshape(-1, width).sum(axis=1)
            row = {"split": name, "class": label, "level": middles, "share": levels / levels.sum()}
            parts.append(pd.DataFrame(row))
    return pd.concat(parts, ignore_index=True)
