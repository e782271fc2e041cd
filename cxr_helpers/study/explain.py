"""Where a linear probe finds its evidence: Grad-CAM through the frozen backbone.

Between the last stage and the probe lie an average over positions and a linear map, so Grad-CAM there is CAM (Zhou et
al. 2016, arXiv 1512.04150) in the probe's own unit: the log-odds that each cell adds. Earlier stages have finer cells
and no unit. Padding gives every cell a level of its own, the same in all images: take off the mean map of many.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..augment import eval_transform
from ..fields import require
from ..models import Backbone
from ..probe import LinearHead, evaluating

__all__ = ["grad_cam"]

BATCH = 128  # images at once


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
