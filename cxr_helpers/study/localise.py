"""Where a linear probe finds its evidence (Grad-CAM), and how well such maps find findings.

Between the last stage and the probe lie an average over positions and a linear map, so Grad-CAM there is CAM (Zhou et
al. 2016, arXiv 1512.04150) in the probe's own unit: the log-odds that each cell adds. Earlier stages have finer cells
and no unit. Padding gives every cell a level of its own, the same in all images: take off the mean map of many.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..augment import eval_transform
from ..fields import require
from ..models import Backbone
from ..probe import LinearHead, evaluating

__all__ = ["box_masks", "floors", "grad_cam", "localisation", "middle_share"]

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
BATCH = 128  # images at once
MOST_CANDIDATES = 500  # masks of train among which the medoid is sought


def grad_cam(
    backbone: Backbone, head: LinearHead, images: Tensor, label: int, stage: str | None = None
) -> NDArray[np.float64]:
    """Grad-CAM of one class of a probe on one stage, signed: without the ReLU that hides counter-evidence.

    Args:
        images: uint8 [N, C, S, S]. stage: of `backbone.stages`; None takes the last.
        label: a class by its place: 0 or 1 of a binary probe, whose single output is the odds of 1, a class or a label.
    Returns:
        [N, h, w], the stage's cells; larger is more evidence for the class, the zero means nothing.
    Raises:
        ValueError: no such class or stage.
    Source: Selvaraju et al. 2017 (arXiv 1610.02391); a ViT's tokens stand on their grid, and none is a class token.
    """
    outputs = head.weights.shape[1]
    require(0 <= label < max(2, outputs), "label", f"one of the probe's {max(2, outputs)} classes, from 0", label)
    column, sign = (label, 1.0) if outputs > 1 else (0, 2.0 * label - 1)
    found, device = [], next(backbone.parameters()).device
    weights = torch.from_numpy(sign * head.weights[:, column] / head.std).float().to(device)
    with evaluating(backbone), torch.enable_grad():
        for part in images.split(BATCH):
            maps = backbone.stages(eval_transform(part.to(device), backbone.normalisation))
            last = list(maps)[-1]
            require(stage is None or stage in maps, "stage", f"one of {', '.join(maps)}", stage)
            slope = torch.autograd.grad((maps[last].mean((2, 3)) @ weights).sum(), maps[stage or last])[0]
            cells = (slope.mean((2, 3), keepdim=True) * maps[stage or last]).sum(dim=1)  # [B, h, w]
            found.append(cells.detach().double().cpu().numpy())
    return np.concatenate(found)


def box_masks(boxes: NDArray[np.floating], size: int) -> Masks:
    """Boxes [N, 4] (left, top, right, bottom, of the side) as masks [N, size, size]: pixels whose centre is inside."""
    centres = (np.arange(size) + 0.5) / size
    left, top, right, bottom = (boxes[:, i, None] for i in range(4))
    rows, columns = (centres >= top) & (centres < bottom), (centres >= left) & (centres < right)
    return rows[:, :, None] & columns[:, None, :]


def overlap(found: Masks, truth: Masks) -> Floats:
    """Intersection over union of masks [..., S, S], image by image."""
    union = (found | truth).sum(axis=(-2, -1))
    return (found & truth).sum(axis=(-2, -1)) / np.maximum(union, 1)


def localisation(maps: Floats, truth: Masks, share: float) -> pd.DataFrame:
    """`iou` and `pointing`, whether the highest pixel is in the finding (arXiv 1608.00507), a row per image.

    Cells are enlarged, and the same share of pixels is found in every image: no threshold is fitted to a film.

    Args:
        maps: evidence [N, h, w]. truth: masks [N, S, S], none empty. share: of the pixels, the highest, that are found.
    """
    require(len(maps) == len(truth), "maps", f"as many as masks, {len(truth)}", len(maps))
    require(bool(truth.any(axis=(1, 2)).all()), "truth", "a finding in every image", "an image without one")
    count = len(truth)
    cells = torch.from_numpy(np.asarray(maps, dtype=np.float64))[:, None]
    heat = F.interpolate(cells, size=truth.shape[-2:], mode="bilinear").flatten(1).numpy()
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
