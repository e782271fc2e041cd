"""Exposure and original size as a handful of numbers per image: what a probe reaches on them, and who follows them.

Exposure is the distribution of grey levels. The original size is gone, for all images were resized to one square;
it shows only in how much detail is left at the scale of a pixel: a large film brought down is crisp there, a small one
(or one that was enlarged on the way) soft, and one squashed to a square softer along the side that was longer. So
sharpness is measured along both sides: energy of grey differences one and two pixels apart against the image's
variance. Contrast leaves it unchanged; noise of the detector and true texture do not, so it is a proxy and a generous
one: what it explains, size need not.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from ..data import Split
from ..probe import Features, one_vs_rest

__all__ = ["SUMMARIES", "grey_statistics", "sharpness_statistics", "summary_statistics", "within_class_products"]

Floats = NDArray[np.float64]
PERCENTILES = (1, 10, 25, 50, 75, 90, 99)
SUMMARIES = ("mean grey", "spread of grey", "sharpness", "sharpness, across less down")
_DARK = 1e-6  # of the squared grey range: below any film's, keeps the logarithm of a blank image finite
_FEWEST = 3  # images of a class below which a rank says nothing


def _features(split: Split, columns: list[Tensor]) -> Features:
    return Features(torch.cat(columns).float().numpy(), split.labels.cpu().numpy(), split.groups)


def grey_statistics(split: Split) -> Features:
    """Mean, standard deviation and seven percentiles of each image's grey levels, in [0, 1]: [N, 9]."""
    return _features(split, [_grey(block) for block in split.images.cpu().split(512)])


def _grey(images: Tensor) -> Tensor:
    levels = images.reshape(len(images), -1).sort(dim=1).values.float() / 255
    at = [round((levels.shape[1] - 1) * p / 100) for p in PERCENTILES]
    return torch.cat([levels.mean(1, keepdim=True), levels.std(1, keepdim=True), levels[:, at]], dim=1)


def sharpness_statistics(split: Split) -> Features:
    """Logarithm of the energy of grey differences across and down, 1 and 2 px apart, against the variance: [N, 4]."""
    return _features(split, [_sharpness(block) for block in split.images.cpu().split(512)])


def _sharpness(images: Tensor) -> Tensor:
    x = images.float().mean(dim=1) / 255  # [B, S, S]
    variance = x.var(dim=(1, 2))
    pairs = [(x[:, :, k:] - x[:, :, :-k], x[:, k:] - x[:, :-k]) for k in (1, 2)]
    energy = [d.square().mean(dim=(1, 2)) for pair in pairs for d in pair]  # across, down; 1 px, 2 px
    return torch.stack([torch.log((e + _DARK) / (variance + _DARK)) for e in energy], dim=1)


def summary_statistics(split: Split) -> Floats:
    """The four numbers of `SUMMARIES` for each image: [N, 4]."""
    grey, sharp = grey_statistics(split).x, sharpness_statistics(split).x
    return np.stack(
        [grey[:, 0], grey[:, 1], (sharp[:, 0] + sharp[:, 1]) / 2, sharp[:, 0] - sharp[:, 1]], axis=1
    ).astype(np.float64)


def within_class_products(labels: NDArray[np.int64], scores: Floats, statistics: Floats) -> Floats:
    """Per image, what it adds to the rank correlation of score and statistic within its class: [N, K].

    Ranks are taken among images of one class, so that a statistic that differs between classes says nothing here; the
    mean over images is Spearman's correlation within classes, averaged by their number of images (with several labels
    over the labels, too).

    Args:
        labels, scores: as for `auc_score`. statistics: [N, K].
    """
    positive, columns = one_vs_rest(labels, scores)
    total = np.zeros(statistics.shape)
    for truth, score in zip(positive.T, columns.T, strict=True):
        for members in (truth, ~truth):
            if members.sum() >= _FEWEST:
                total[members] += _unit_ranks(score[members][:, None]) * _unit_ranks(statistics[members])
    return total / positive.shape[1]


def _unit_ranks(values: Floats) -> Floats:
    """Ranks of each column with mean 0 and standard deviation 1; zeros for a constant column."""
    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    spread = ranks.std(axis=0)
    return ranks / np.where(spread > 0, spread, 1.0)
