"""Images from which one explanation was taken away: the lungs, all but the lungs, the exposure, the finest detail.

Each function takes and returns uint8 [N, C, S, S], so that what is left passes the very `eval_transform` and encoder
that whole images pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import Split

__all__ = ["ALONE", "INPUTS", "REMOVED", "border_only", "centre_only", "changed", "equalised", "smoothed"]

_LEVELS = 256


def _frame(side: int, fraction: float) -> Tensor:
    """Bool [S, S]: the pixels less than that part of the side away from an edge."""
    width = max(1, round(side * fraction))
    if not (fraction > 0 and width < side / 2):
        raise ValueError(f"fraction must be above 0 and leave a centre, got {fraction:g}: {width} px of {side}")
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[width : side - width, width : side - width] = True
    return ~inside


def border_only(images: Tensor, fraction: float) -> Tensor:
    """The frame of that part of the side, the centre black: the lungs are gone, the film's edges are left.

    Black is what the augmentations put outside a film; the mean grey of a film would tell its exposure.

    Raises:
        ValueError: a fraction that leaves no centre, or is not above 0.
    """
    return images * _frame(images.shape[-1], fraction)


def centre_only(images: Tensor, fraction: float) -> Tensor:
    """The opposite of `border_only`: the frame black, the centre as it is."""
    return images * ~_frame(images.shape[-1], fraction)


def equalised(images: Tensor) -> Tensor:
    """The histogram of every image made flat: a pixel becomes its rank among the image's pixels, ties the middle one.

    Mean, spread and every percentile of grey are then the same for all images, but for ties.
    """
    n = len(images)
    levels = images.reshape(n, -1).long()
    counts = torch.zeros(n, _LEVELS, dtype=torch.long).scatter_add_(1, levels, torch.ones_like(levels))
    middle = counts.cumsum(1) - 0.5 * (counts + 1)  # mean rank of a level's pixels, from 0
    grey = middle * ((_LEVELS - 1) / max(levels.shape[1] - 1, 1))
    return grey.gather(1, levels).round().to(torch.uint8).reshape(images.shape)


def smoothed(images: Tensor) -> Tensor:
    """Detail finer than two pixels removed: averaged down to half the side and interpolated back (bilinear).

    That is where the size of the original shows in a resized image; what shows at coarser scales is not removed.
    """
    side = images.shape[-1]
    half = F.adaptive_avg_pool2d(images.float(), side // 2)
    return F.interpolate(half, (side, side), mode="bilinear").round().to(torch.uint8)


ALONE: dict[str, Callable[[Tensor], Tensor]] = {  # nothing but what the objection names
    "border 1/16": partial(border_only, fraction=1 / 16),  # 23 % of the film: markers, text, edges of the exposure
    "border 1/8": partial(border_only, fraction=1 / 8),  # 44 %: shoulders, flanks, abdomen come in
    "border 1/4": partial(border_only, fraction=1 / 4),  # 75 %: the outer lungs come in; no wider one is a border
}
REMOVED: dict[str, Callable[[Tensor], Tensor]] = {  # all but what the objection names
    "border 1/4 removed": partial(centre_only, fraction=1 / 4),  # the other 25 %: heart and inner lungs
    "grey levels equalised": equalised,
    "finest detail removed": smoothed,
}
INPUTS = ALONE | REMOVED


def changed(split: Split, name: str) -> Split:
    """A split whose images went through one of `INPUTS`, block by block; labels and patients as they were."""
    return replace(split, images=torch.cat([INPUTS[name](block) for block in split.images.cpu().split(512)]))
