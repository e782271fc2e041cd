"""How alike views are: two of one image against two of different images, one operation alone, two crops.

What a contrastive or a siamese loss has to find is given by the policy alone: these figures need no training.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .augment import AugmentationPolicy, CropSampler, Draw, OneView, Views, alone, draw_table, normalise
from .models import Backbone
from .probe import evaluating

__all__ = ["crop_overlaps", "operation_effects", "similarity_summary", "view_similarities", "view_values", "views_of"]

PIXELS, ENCODER = "pixels", "untrained encoder"
_BATCH = 128  # images through the encoder at once: a few hundred MB at 224 px


def views_of(policy: AugmentationPolicy, images: Tensor, size: int, *, num_views: int = 2, seed: int = 0) -> Tensor:
    """Views of each image under that seed's draws of the first epoch, the pixel noise seeded as well.

    Args:
        images: uint8 [N, C, S, S].
        size: side of the views in px.

    Returns:
        float [N, num_views, C, size, size] in [0, 1], before any normalisation.
    """
    draws = draw_table(len(images), num_views, seed, 0)
    return torch.stack(Views(policy, size, num_views)(images, draws, _noise(images, seed)), dim=1)


def _noise(images: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(images.device).manual_seed(seed)


def _unit_rows(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _correlations(x_a: Tensor, x_b: Tensor) -> Tensor:
    """Pearson correlation over pixels of every view in x_a with every view in x_b, [N, N]; 0 for a flat view."""
    a, b = (x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True) for x in (x_a, x_b))
    return _unit_rows(a) @ _unit_rows(b).T


@torch.inference_mode()
def _cosines(x_a: Tensor, x_b: Tensor, encoder: Backbone) -> Tensor:
    """Cosine of features after the mean of all views is taken off, [N, N].

    An untrained encoder's features are all positive and nearly parallel; without the centring every cosine is near 1.
    """
    with evaluating(encoder):
        x = normalise(torch.cat([x_a, x_b]), encoder.normalisation)
        h = torch.cat([encoder(part) for part in x.split(_BATCH)])
    a, b = _unit_rows(h - h.mean(dim=0)).chunk(2)
    return a @ b.T


def view_similarities(
    policies: Iterable[AugmentationPolicy],
    images: Tensor,
    size: int,
    *,
    encoder: Backbone | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """For each image and policy: how alike its two views are, against one of its views and one of another image.

    Args:
        policies: to be compared on the same draws.
        images: uint8 [N, C, S, S], N ≥ 2.
        size: side of the views in px.
        encoder: of features to be compared as well; None compares pixels alone.
        seed: of the draws.

    Returns:
        One row per policy, measure ("pixels": correlation; "untrained encoder": centred cosine) and image: `same`,
        `different` (with the next image's other view) and `found` (whether of all N second views the image's own is
        the most alike; chance is 1 / N).

    Raises:
        ValueError: fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"images must be at least 2 to compare different ones, got {len(images)}")
    tables = []
    for policy in policies:
        x_a, x_b = views_of(policy, images, size, seed=seed).unbind(1)
        measures = {PIXELS: _correlations(x_a, x_b)}
        if encoder is not None:
            measures[ENCODER] = _cosines(x_a, x_b, encoder)
        for measure, matrix in measures.items():
            own = torch.arange(len(images))
            values = {
                "same": matrix.diagonal().numpy(),
                "different": matrix[own, (own + 1) % len(own)].numpy(),
                "found": (matrix.argmax(dim=1) == own).numpy(),
            }
            tables.append(pd.DataFrame({"policy": policy.name, "measure": measure, "image": own.numpy(), **values}))
    return pd.concat(tables, ignore_index=True)


def similarity_summary(similarities: pd.DataFrame) -> pd.DataFrame:
    """Per policy and measure: number of images, means, and the share of images whose other view is found."""
    grouped = similarities.groupby(["policy", "measure"], sort=False)
    return grouped.agg(
        images=("image", "size"),
        same=("same", "mean"),
        different=("different", "mean"),
        found=("found", "mean"),
    ).reset_index()


def operation_effects(
    policies: Iterable[AugmentationPolicy], images: Tensor, size: int, *, seed: int = 0
) -> pd.DataFrame:
    """Every operation of every policy alone: how far it moves pixels, and how far two views apart.

    Args:
        images: uint8 [N, C, S, S].
        size: side of the views in px.

    Returns:
        One row per policy and operation: its probability, `mean_change` and `max_change` of a pixel when it acts (of
        the [0, 1] range, against the image untouched), `apart` (1 − mean pixel correlation of two views that draw it
        as often as the policy says), and the `effect` that `describe` states for these channels.
    """
    plain = AugmentationPolicy(name="none", reason="identity")
    draws = draw_table(len(images), 2, seed, 0)
    (untouched,) = OneView(plain, size)(images, draws[:, :1])
    rows = []
    for policy in policies:
        for row in policy.describe(images.shape[1]):
            always = OneView(alone(policy, row.operation, always=True), size)
            (acted,) = always(images, draws[:, :1], _noise(images, seed))
            change = (acted - untouched).abs()
            x_a, x_b = views_of(alone(policy, row.operation), images, size, seed=seed).unbind(1)
            rows.append(
                {
                    "policy": policy.name,
                    "operation": row.operation,
                    "probability": row.probability,
                    "magnitude": row.magnitude,
                    "mean_change": float(change.mean()),
                    "max_change": float(change.max()),
                    "apart": _apart(x_a, x_b),
                    "effect": row.effect,
                }
            )
    return pd.DataFrame(rows)


def _apart(x_a: Tensor, x_b: Tensor) -> float:
    """1 − mean correlation of the pairs; 0 for equal views, flat ones included."""
    if torch.equal(x_a, x_b):
        return 0.0
    return max(0.0, 1 - float(_correlations(x_a, x_b).diagonal().mean()))


def crop_overlaps(policies: Iterable[AugmentationPolicy], num_images: int, *, seed: int = 0) -> pd.DataFrame:
    """How much of the image the crops of two views share, from the draws alone.

    The windows are those of the crop; a rotation by a few degrees on top of it, and RandAugment's shifts, are left out.

    Returns:
        One row per policy and image: areas `area_a`, `area_b` and their `shared` part as fractions of the image, and
        `iou`, shared over union.
    """
    draws = draw_table(num_images, 2, seed, 0)
    tables = []
    for policy in policies:
        scale = (policy.crop_scale_min, policy.crop_scale_max)
        sampler = CropSampler(scale, (policy.crop_ratio_min, policy.crop_ratio_max))
        a, b = (sampler(draws[:, view, Draw.CROP_RATIO : Draw.CROP_Y + 1]) for view in (0, 1))
        shared = _common(a[0], a[2], b[0], b[2]) * _common(a[1], a[3], b[1], b[3])
        area_a, area_b = a[2] * a[3], b[2] * b[3]
        values = {"area_a": area_a, "area_b": area_b, "shared": shared, "iou": shared / (area_a + area_b - shared)}
        columns = {name: value.numpy() for name, value in values.items()}
        tables.append(pd.DataFrame({"policy": policy.name, "image": np.arange(num_images), **columns}))
    return pd.concat(tables, ignore_index=True)


def _common(centre_a: Tensor, width_a: Tensor, centre_b: Tensor, width_b: Tensor) -> Tensor:
    """Length shared by two intervals, centres in [-1, 1], widths and the result as fractions of the side."""
    right = torch.minimum(centre_a / 2 + width_a / 2, centre_b / 2 + width_b / 2)
    left = torch.maximum(centre_a / 2 - width_a / 2, centre_b / 2 - width_b / 2)
    return (right - left).clamp_min(0)


def view_values(policies: Iterable[AugmentationPolicy], images: Tensor, size: int, *, seed: int = 0) -> pd.DataFrame:
    """The range of a policy's views, of what the encoder gets after its normalisation, and of that undone again.

    Returns:
        One row per policy: `low`, `mean`, `high` of the views, `black` and `white`, the shares of their pixels at
        either end (to half of a stored grey), `encoder_low`, `encoder_high` after (x − mean) / std, and `undone`, the
        largest difference between a view and its normalisation reversed.
    """
    rows = []
    for policy in policies:
        x = views_of(policy, images, size, seed=seed).flatten(0, 1)
        normalisation = policy.normalisation.for_channels(x.shape[1])
        seen = normalise(x, normalisation)
        mean, std = (x.new_tensor(v).view(1, -1, 1, 1) for v in (normalisation.mean, normalisation.std))
        rows.append(
            {
                "policy": policy.name,
                "low": float(x.min()),
                "mean": float(x.mean()),
                "high": float(x.max()),
                "black": float((x < 0.5 / 255).float().mean()),
                "white": float((x > 1 - 0.5 / 255).float().mean()),
                "encoder_low": float(seen.min()),
                "encoder_high": float(seen.max()),
                "undone": float((seen * std + mean - x).abs().max()),
            }
        )
    return pd.DataFrame(rows)
