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
from ..models import Backbone
from ..probe import LinearHead, evaluating

__all__ = ["grad_cam"]

BATCH = 128  # images at once


def grad_cam(
    backbone: Backbone, head: LinearHead, images: Tensor, output: int, stage: str | None = None
) -> NDArray[np.float64]:
    """Grad-CAM of one output of a probe on one stage, signed: without the ReLU that hides counter-evidence.

    Args:
        images: uint8 [N, C, S, S]. output: column of the log-odds. stage: of `backbone.stages`; None takes the last.
    Returns:
        [N, h, w], the stage's cells; larger is more evidence for the output, the zero means nothing.
    Source: Selvaraju et al. 2017 (arXiv 1610.02391).
    """
    found, device = [], next(backbone.parameters()).device
    weights = torch.from_numpy(head.weights[:, output] / head.std).float().to(device)
    with evaluating(backbone), torch.enable_grad():
        for part in images.split(BATCH):
            maps = backbone.stages(eval_transform(part.to(device), backbone.normalisation))
            last = list(maps)[-1]
            slope = torch.autograd.grad((maps[last].mean((2, 3)) @ weights).sum(), maps[stage or last])[0]
            cells = (slope.mean((2, 3), keepdim=True) * maps[stage or last]).sum(dim=1)  # [B, h, w]
            found.append(cells.detach().double().cpu().numpy())
    return np.concatenate(found)
