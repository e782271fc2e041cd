"""How well maps of evidence find findings, image by image, beside what needs no network: one box, one map for all.

A map's heatmap is its cells, enlarged, of which the same share of pixels counts as found in every image: the share that
findings have in train. So no threshold is fitted to a film, and maps of any unit and sign are compared.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..fields import require

__all__ = ["box_masks", "floors", "localisation", "middle_share"]

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
MOST_CANDIDATES = 500  # masks of train among which the medoid is sought


def box_masks(boxes: NDArray[np.floating], size: int) -> Masks:
    """Boxes [N, 4] (left, top, right, bottom, of the side) as masks [N, size, size]: pixels whose centre is inside."""
    centres = (np.arange(size) + 0.5) / size
    left, top, right, bottom = (boxes[:, i, None] for i in range(4))
    rows, columns = (centres >= top) & (centres < bottom), (centres >= left) & (centres < right)
    return rows[:, :, None] & columns[:, None, :]


def enlarged(maps: Floats, size: int) -> Floats:
    """Cells [N, h, w] as pixels [N, size, size], bilinear."""
    cells = torch.from_numpy(np.asarray(maps, dtype=np.float64))[:, None]
    return F.interpolate(cells, size=(size, size), mode="bilinear")[:, 0].numpy()


def overlap(found: Masks, truth: Masks) -> Floats:
    """Intersection over union of masks [..., S, S], image by image."""
    union = (found | truth).sum(axis=(-2, -1))
    return (found & truth).sum(axis=(-2, -1)) / np.maximum(union, 1)


def localisation(maps: Floats, truth: Masks, share: float) -> pd.DataFrame:
    """`iou` and `pointing`, whether the highest pixel is in the finding (arXiv 1608.00507), a row per image.

    Args:
        maps: evidence [N, h, w]. truth: masks [N, S, S], none empty. share: of the pixels, the highest, that are found.
    """
    require(len(maps) == len(truth), "maps", f"as many as masks, {len(truth)}", len(maps))
    require(bool(truth.any(axis=(1, 2)).all()), "truth", "a finding in every image", "an image without one")
    count = len(truth)
    heat = enlarged(maps, truth.shape[-1]).reshape(count, -1)
    order = np.argsort(-heat, axis=1, kind="stable")
    found = np.zeros_like(heat, dtype=bool)
    np.put_along_axis(found, order[:, : max(1, round(share * heat.shape[1]))], True, axis=1)
    pointing = truth.reshape(count, -1)[np.arange(count), order[:, 0]]
    return pd.DataFrame({"iou": overlap(found.reshape(truth.shape), truth), "pointing": pointing.astype(float)})


def floors(train: Masks, truth: Masks, usual: Floats | None = None) -> dict[str, pd.DataFrame]:
    """What needs no network on the same images, rows as `localisation`'s.

    The constant box is the finding of train that overlaps the others most, the middle of its box its point; the usual
    map is the same for all images.

    Args:
        train: masks [M, S, S], none empty, of other images. usual: a map [h, w], as the mean over films of train.
    """
    some = train[:: -(-len(train) // MOST_CANDIDATES)]
    box = some[int(np.argmax([overlap(one[None], some).mean() for one in some]))]
    ys, xs = np.nonzero(box)
    point = (ys.min() + ys.max()) // 2, (xs.min() + xs.max()) // 2
    table = pd.DataFrame({"iou": overlap(box[None], truth), "pointing": truth[:, *point].astype(float)})
    found = {"constant box": table}
    if usual is not None:
        found["usual map"] = localisation(np.repeat(usual[None], len(truth), axis=0), truth, train.mean())
    return found


def middle_share(maps: Floats, part: float = 0.5) -> Floats:
    """How much of the positive evidence of maps [N, h, w] lies in the middle, [N], nan where there is none.

    Args:
        part: of the side that is the middle; a map that is the same everywhere has part² of it there.
    """
    positive = np.maximum(np.asarray(maps, dtype=np.float64), 0.0)
    weights = []
    for count in positive.shape[1:]:
        edges = np.linspace(-1, 1, count + 1)
        inside = np.clip(edges[1:], -part, part) - np.clip(edges[:-1], -part, part)
        weights.append(inside * count / 2)  # of each cell, the part in the middle
    total = positive.sum(axis=(1, 2))
    middle = np.einsum("nhw,h,w->n", positive, *weights)
    return np.divide(middle, total, out=np.full(len(total), np.nan), where=total > 0)
