"""How far a policy moves an image: two views of one image against two of different images, one operation alone.

What a contrastive or a siamese loss has to find is given by the policy; a trained encoder says what it has learnt to
overlook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor

from ..augment import AugmentationPolicy, OneView, Views, alone, draw_table, normalise
from ..models import Backbone
from ..probe import evaluating

__all__ = ["operation_effects", "view_similarities", "views_of"]

PIXELS = "pixels"
_BATCH = 128  # images through the encoder at once: a few hundred MB at 224 px


def views_of(policy: AugmentationPolicy, images: Tensor, size: int, *, num_views: int = 2, seed: int = 0) -> Tensor:
    """Views of uint8 images [N, C, S, S] under that seed's draws of the first epoch, before any normalisation.

    Returns:
        float [N, num_views, C, size, size] in [0, 1].
    """
    draws, noise = draw_table(len(images), num_views, seed, 0), torch.Generator().manual_seed(seed)
    return torch.stack(Views(policy, size, num_views)(images, draws, noise), dim=1)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over pixels of every view in a with every view in b, [N, N]; 0 for a flat view."""
    a, b = (x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True) for x in (a, b))
    return _unit(a) @ _unit(b).T


@torch.inference_mode()
def _cosines(a: Tensor, b: Tensor, encoder: Backbone) -> Tensor:
    """Cosine of features, [N, N], the mean of all views taken off: features are all positive and nearly parallel."""
    with evaluating(encoder):
        h = torch.cat([encoder(part) for part in normalise(torch.cat([a, b]), encoder.normalisation).split(_BATCH)])
    a, b = _unit(h - h.mean(dim=0)).chunk(2)
    return a @ b.T


def view_similarities(
    policies: Iterable[AugmentationPolicy],
    images: Tensor,
    size: int,
    encoders: Mapping[str, Backbone] | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """For each image and policy: how alike its two views are, against one of its views and one of another image.

    Args:
        policies: compared on the same draws. images: uint8 [N, C, S, S], N ≥ 2. size: side of the views in px.
        encoders: by name, whose features are compared as well.
    Returns:
        A line per policy, measure ("pixels": correlation; an encoder's name: centred cosine) and image: `same`,
        `different` (with the next image's other view), `found` (whether of all second views its own is the most alike).
    Raises:
        ValueError: fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"images must be at least 2 to compare different ones, got {len(images)}")
    own, tables = torch.arange(len(images)), []
    for policy in policies:
        a, b = views_of(policy, images, size, seed=seed).unbind(1)
        measures = {name: _cosines(a, b, encoder) for name, encoder in (encoders or {}).items()}
        for measure, matrix in ({PIXELS: _correlations(a, b)} | measures).items():
            values = {"same": matrix.diagonal(), "different": matrix[own, (own + 1) % len(own)]}
            values |= {"found": matrix.argmax(dim=1) == own, "image": own}
            columns = {name: value.numpy() for name, value in values.items()}
            tables.append(pd.DataFrame({"policy": policy.name, "measure": measure, **columns}))
    return pd.concat(tables, ignore_index=True)


def operation_effects(
    policies: Iterable[AugmentationPolicy], images: Tensor, size: int, *, seed: int = 0
) -> pd.DataFrame:
    """Every operation of every policy alone: how far it moves pixels, and how far two views apart.

    Returns:
        `policy, operation, probability, magnitude`; `mean_change, max_change` of a pixel when it acts (of the [0, 1]
        range); `apart`: 1 − mean correlation of two views that draw it as often as the policy says; and the `effect`
        that `describe` states for these channels.
    """
    draws, lines = draw_table(len(images), 2, seed, 0)[:, :1], []
    (untouched,) = OneView(AugmentationPolicy(name="none", reason="identity"), size)(images, draws)
    for policy in policies:
        for row in policy.describe(images.shape[1]):
            acts = OneView(alone(policy, row.operation, always=True), size)
            change = (acts(images, draws, torch.Generator().manual_seed(seed))[0] - untouched).abs()
            line = {"policy": policy.name, "operation": row.operation, "probability": row.probability}
            line |= {"magnitude": row.magnitude, "mean_change": float(change.mean()), "max_change": float(change.max())}
            a, b = views_of(alone(policy, row.operation), images, size, seed=seed).unbind(1)
            apart = 0.0 if torch.equal(a, b) else max(0.0, 1 - float(_correlations(a, b).diagonal().mean()))
            lines.append(line | {"apart": apart, "effect": row.effect})
    return pd.DataFrame(lines)
