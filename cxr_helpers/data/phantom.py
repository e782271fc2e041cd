"""Embedded data sets: procedural chest films with known findings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..fields import require
from .chest import Array, Parameters, draw_anatomy, draw_texture, render_chest
from .dataset import Dataset, Split, Task, call_a_draw, fixed_draw

__all__ = ["PHANTOMS", "phantom"]

_RATES = {"effusion": 0.25, "cardiomegaly": 0.22, "nodule": 0.20, "consolidation": 0.25, "pneumothorax": 0.18}
_LABELS = tuple(_RATES)  # a label and how often it is present
# of each film: (low, high), or None for a side
_LOBE = {
    "consolidation_side": None, "consolidation_depth": (0.22, 0.76), "consolidation_across": (0.25, 0.80),
    "consolidation_width": (0.20, 0.36), "consolidation_height": (0.20, 0.36), "consolidation_fissure": None,
    "fill": (0.40, 0.75),
}  # fmt: skip
_OTHERS = {
    "effusion_side": None, "effusion_level": (-0.35, 0.0), "effusion_rise": (0.5, 1.0),
    "pneumothorax_side": None, "pneumothorax_gap": (0.16, 0.36),
    "nodule_side": None, "nodule_depth": (0.22, 0.76), "nodule_across": (0.25, 0.80),
    "nodule_radius": (0.05, 0.10), "nodule_density": (0.18, 0.32),
}  # fmt: skip
_COUNTS = {"train": 1400, "val": 250, "test": 500}
_VARIANTS: dict[str, tuple[Task, tuple[str, ...]]] = {
    "phantom": ("binary", ("normal", "pneumonia")),
    "phantom_multilabel": ("multilabel", _LABELS),
}
PHANTOMS = tuple(_VARIANTS)
_MIN_SIZE = 28
_CHUNK_PIXELS = 1 << 16  # a chunk's float32 planes stay in the cache
_MASK_LEVEL = 0.4  # of a finding's strongest pixel: its mask is never empty
_SPECK = 0.05  # parts of a mask below this share of the largest are dropped


def phantom(variant: str, size: int, max_train_images: int | None, max_eval_images: int | None) -> Dataset:
    """Draw one of `PHANTOMS`, at most so many images of each split: an image is the same in any draw.

    Films come with masks and patients, none of them in two splits. Sizes below 28 px are refused.
    """
    require(size >= _MIN_SIZE, f"size of {variant}", f"{_MIN_SIZE} px or more", size)
    task, class_names = _VARIANTS[variant]
    most = {"train": max_train_images, "val": max_eval_images, "test": max_eval_images}
    splits = {split: draw_films(variant, split, size, fixed_draw(_COUNTS[split], most[split])) for split in _COUNTS}
    record = {"source": f"{variant}, drawn with seed 0", "status": "phantom", "notes": []}
    dataset = Dataset(name=variant, size=size, task=task, class_names=class_names, provenance=record, **splits)
    whole = {split: len(films) for split, films in splits.items()} == _COUNTS
    return dataset if whole else call_a_draw(dataset, max_train_images, max_eval_images)


def _generator(variant: str, split: str, *stream: int) -> np.random.Generator:
    """A generator of its own for each variant, split and use: no split depends on another's length."""
    key = (PHANTOMS.index(variant), list(_COUNTS).index(split), *(stream or (0,)))
    return np.random.default_rng(np.random.SeedSequence(0, spawn_key=key))


def draw_films(variant: str, split: str, size: int, rows: NDArray[np.int64]) -> Split:
    """Those films of a split."""
    rng, count = _generator(variant, split), _COUNTS[split]
    films = rng.integers(1, 6, count)  # of each patient
    patient = np.repeat(np.arange(count, dtype=np.int64), films)[:count]
    p, texture = draw_anatomy(rng, patient), draw_texture(rng)
    findings = _draw_findings(variant, p, rng, patient)
    factor = -(-2 * _MIN_SIZE // size)  # fine ribs are drawn larger and averaged
    images = np.empty((len(rows), size, size), np.uint8)
    masks = np.empty((len(rows), 1 if variant == "phantom" else len(_LABELS), size, size), bool)
    step = max(1, _CHUNK_PIXELS // (size * factor) ** 2)
    for start in range(0, len(rows), step):
        chosen = rows[start : start + step]
        part, found = ({name: value[chosen] for name, value in values.items()} for values in (p, findings))
        grains = (_generator(variant, split, 1, int(row)) for row in chosen)  # of each image: its own
        grain = np.stack([own.standard_normal((size * factor,) * 2, dtype=np.float32) for own in grains])
        film, strength = render_chest(part, found, texture, grain)
        images[start : start + step] = np.rint(_shrink(film, factor))
        planes = np.stack([*strength.values()], axis=1)
        if variant == "phantom":  # both kinds of opacity are one class
            planes = planes.sum(axis=1, keepdims=True)
        planes = _shrink(planes, factor)
        peak = planes.max(axis=(2, 3), keepdims=True)
        masks[start : start + step] = (planes > _MASK_LEVEL * peak) & (peak > 0)
    shown = np.any(masks, axis=(2, 3))
    for film, finding in np.argwhere(shown):
        masks[film, finding] = _without_specks(masks[film, finding])
    labels = torch.from_numpy((shown[:, 0] if variant == "phantom" else shown).astype(np.int64))
    groups = np.array([f"{split}-{index:04d}" for index in patient[rows]])
    return Split(images=torch.from_numpy(images[:, None]), labels=labels, groups=groups, masks=torch.from_numpy(masks))


def _draw_findings(
    variant: str, p: Parameters, rng: np.random.Generator, patient: NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """Add the findings' values to p; return which films show which finding."""
    num = len(patient)

    def draw(ranges: Mapping[str, tuple[float, float] | None]) -> None:
        for name, span in ranges.items():
            value = rng.uniform(*span, num) if span else rng.choice([-1.0, 1.0], num)
            p[name] = value.astype(np.float32)[:, None, None]

    draw(_LOBE)
    if variant == "phantom":
        sick = (rng.random(num)[patient] < 0.62) & (rng.random(num) < 0.80)
        lobar = rng.random(num) < 0.6
        draw({"infiltrate_cut": (0.2, 0.9)})
        return {"consolidation": sick & lobar, "infiltrate": sick & ~lobar}
    draw(_OTHERS)
    present = {name: rng.random(num) < rate for name, rate in _RATES.items()}
    wider = np.where(present["cardiomegaly"], rng.uniform(1.45, 1.75, num), 1).astype(np.float32)[:, None, None]
    p["heart_left"], p["heart_right"] = p["heart_left"] * wider, p["heart_right"] * wider
    return present


def _shrink(planes: Array, factor: int) -> Array:
    """Average blocks of factor x factor pixels of [..., S, S]."""
    side = planes.shape[-1] // factor
    return planes.reshape(*planes.shape[:-2], side, factor, side, factor).mean(axis=(-3, -1))


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask [S, S] without the parts that are far smaller than its largest."""
    parts, _ = ndimage.label(mask)
    areas = np.bincount(parts[mask], minlength=1)
    return mask & (areas >= _SPECK * areas.max())[parts]
