"""How far a policy moves an image: two views of one image against two of different images, one operation alone."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor

from ..augment import AugmentationPolicy, Views, alone, draw_table

__all__ = ["operation_effects", "view_similarities", "views_of"]


def views_of(policy: AugmentationPolicy, images: Tensor, size: int) -> Tensor:
    """Two views of uint8 images [N, C, S, S] under seed 0's draws of the first epoch: float [N, 2, C, size, size]."""
    draws, noise = draw_table(len(images), 2, 0, 0), torch.Generator().manual_seed(0)
    return torch.stack(Views(policy, size, 2)(images, draws, noise), dim=1)


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over pixels of every view in a with every view in b, [N, N]; 0 for a flat view."""
    a, b = (x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True) for x in (a, b))
    a, b = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in (a, b))
    return a @ b.T


def view_similarities(policies: Iterable[AugmentationPolicy], images: Tensor, size: int) -> pd.DataFrame:
    """For each image and policy: how alike its two views are, against one of its views and one of another image.

    Returns:
        A line per policy and image, correlations of pixels: `same`, `different` (with the next image's other view),
        `found` (whether of all second views its own is the most alike).
    """
    own, tables = torch.arange(len(images)), []
    for policy in policies:
        matrix = _correlations(*views_of(policy, images, size).unbind(1))
        values = {"same": matrix.diagonal(), "different": matrix[own, (own + 1) % len(own)]}
        values |= {"found": matrix.argmax(dim=1) == own}
        tables.append(pd.DataFrame({"policy": policy.name} | {name: value.numpy() for name, value in values.items()}))
    return pd.concat(tables, ignore_index=True)


def operation_effects(policies: Iterable[AugmentationPolicy], images: Tensor, size: int) -> pd.DataFrame:
    """Every operation of every policy alone: how far it moves two views apart.

    Returns:
        `policy, operation`; `apart`: 1 − mean correlation of two views that draw it as often as the policy says; and
        the `effect` that `describe` states for these channels.
    """
    lines = []
    for policy in policies:
        for row in policy.describe(images.shape[1]):
            a, b = views_of(alone(policy, row.operation), images, size).unbind(1)
            apart = 0.0 if torch.equal(a, b) else max(0.0, 1 - float(_correlations(a, b).diagonal().mean()))
            lines.append({"policy": policy.name, "operation": row.operation, "apart": apart, "effect": row.effect})
    return pd.DataFrame(lines)
