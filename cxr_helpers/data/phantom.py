"""Embedded data sets: procedural chest films with known findings, and colour shapes in CIFAR's place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .chest import Array, Parameters, draw_anatomy, draw_texture, render_chest
from .shapes import SHAPE_CLASSES, render_shapes

__all__ = ["PHANTOM_VARIANTS", "PhantomData", "PhantomSplit", "phantom_arrays", "phantom_counts"]

PHANTOM_VARIANTS = ("phantom", "phantom_multilabel", "phantom_shapes")
_LABELS = ("effusion", "cardiomegaly", "nodule", "consolidation", "pneumothorax")
_RATES = (0.25, 0.22, 0.20, 0.25, 0.18)  # how often each label is present
_CHEST_IMAGES = {"train": 1400, "val": 250, "test": 500}
_SHAPE_IMAGES = {"train": 5000, "val": 1000, "test": 1000}
_MIN_SIZE = 28
_CHUNK_PIXELS = 1 << 16  # a chunk's float32 planes stay in the cache
_MASK_LEVEL = 0.4  # of a finding's strongest pixel: its mask is never empty
_SPECK = 0.05  # parts of a mask below this share of the largest are dropped


@dataclass(frozen=True, eq=False, kw_only=True)
class PhantomSplit:
    """One split as plain arrays."""

    images: NDArray[np.uint8]  # [N, H, W] grey or [N, H, W, 3]
    labels: NDArray[np.int64]  # [N] or [N, L]
    groups: NDArray[np.str_] | None = None  # [N], the patient
    masks: NDArray[np.bool_] | None = None  # [N, L, H, W]; L = 1, the opacity, for `phantom`
    boxes: tuple[NDArray[np.float32], ...] | None = None  # per image [n, 4], xyxy px
    box_labels: tuple[NDArray[np.int64], ...] | None = None  # per image [n], index along L


@dataclass(frozen=True, eq=False, kw_only=True)
class PhantomData:
    """A whole data set as plain arrays."""

    task: Literal["binary", "multiclass", "multilabel"]
    class_names: tuple[str, ...]
    splits: dict[str, PhantomSplit]  # train, val, test


def phantom_counts(variant: str) -> dict[str, int]:
    """How many images each split of a variant has."""
    return dict(_SHAPE_IMAGES if variant == "phantom_shapes" else _CHEST_IMAGES)


def phantom_arrays(
    variant: str, size: int, seed: int = 0, rows: Mapping[str, NDArray[np.int64]] | None = None
) -> PhantomData:
    """Draw an embedded data set; the same arguments give the same arrays.

    Args:
        variant: one of `PHANTOM_VARIANTS`.
        size: image side in pixels, 28 or more.
        seed: 0 or more; another seed draws other patients.
        rows: indices of the images to draw, for splits of which not all are wanted: each comes out as it does among
            all the others.

    Returns:
        three splits; no patient in two of them.

    Raises:
        ValueError: unknown variant, or a size or seed below its minimum.
    """
    if variant not in PHANTOM_VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(PHANTOM_VARIANTS)}, got {variant!r}.")
    if size < _MIN_SIZE:
        raise ValueError(f"size must be {_MIN_SIZE} px or more for {variant}, got {size}.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    counts = phantom_counts(variant)
    wanted = {name: np.arange(num) for name, num in counts.items()} | dict(rows or {})
    if variant == "phantom_shapes":
        splits = {name: _shapes_split(name, num, size, seed, wanted[name]) for name, num in counts.items()}
        return PhantomData(task="multiclass", class_names=SHAPE_CLASSES, splits=splits)
    splits = {name: _chest_split(variant, name, num, size, seed, wanted[name]) for name, num in counts.items()}
    if variant == "phantom":
        return PhantomData(task="binary", class_names=("normal", "pneumonia"), splits=splits)
    return PhantomData(task="multilabel", class_names=_LABELS, splits=splits)


def _generator(variant: str, split: str, seed: int, *stream: int) -> np.random.Generator:
    """A generator of its own for each variant, split and use: no split depends on another's length."""
    key = (PHANTOM_VARIANTS.index(variant), list(_CHEST_IMAGES).index(split), *(stream or (0,)))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _shapes_split(
    split: str, num_images: int, size: int, seed: int, rows: NDArray[np.int64] | None = None
) -> PhantomSplit:
    rng = _generator("phantom_shapes", split, seed)
    labels = rng.permutation(np.arange(num_images, dtype=np.int64) % len(SHAPE_CLASSES))
    rows = np.arange(num_images) if rows is None else rows
    return PhantomSplit(images=render_shapes(labels, size, rng, rows), labels=labels[rows])


def _draw_patients(rng: np.random.Generator, num_images: int) -> NDArray[np.int64]:
    """[N] patient of each image: one to five films each."""
    films = rng.integers(1, 6, num_images)
    return np.repeat(np.arange(num_images, dtype=np.int64), films)[:num_images]


def _column(values: NDArray[np.float64]) -> Array:
    return values.astype(np.float32)[:, None, None]


def _draw_focus(p: Parameters, rng: np.random.Generator, name: str, num: int) -> None:
    p[f"{name}_side"] = _column(rng.choice([-1.0, 1.0], num))
    p[f"{name}_depth"] = _column(rng.uniform(0.22, 0.76, num))
    p[f"{name}_across"] = _column(rng.uniform(0.25, 0.80, num))


def _draw_findings(
    variant: str, p: Parameters, rng: np.random.Generator, patient: NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """Add the findings' values to p; return which films show which finding."""
    num = len(patient)
    _draw_focus(p, rng, "consolidation", num)
    p["consolidation_width"] = _column(rng.uniform(0.20, 0.36, num))
    p["consolidation_height"] = _column(rng.uniform(0.20, 0.36, num))
    p["consolidation_fissure"] = _column(rng.choice([-1.0, 1.0], num))
    p["fill"] = _column(rng.uniform(0.40, 0.75, num))
    if variant == "phantom":
        sick = (rng.random(num)[patient] < 0.62) & (rng.random(num) < 0.80)
        lobar = rng.random(num) < 0.6
        p["infiltrate_cut"] = _column(rng.uniform(0.2, 0.9, num))
        return {"consolidation": sick & lobar, "infiltrate": sick & ~lobar}
    p["effusion_side"] = _column(rng.choice([-1.0, 1.0], num))
    p["effusion_level"] = _column(rng.uniform(-0.35, 0.0, num))
    p["effusion_rise"] = _column(rng.uniform(0.5, 1.0, num))
    p["pneumothorax_side"] = _column(rng.choice([-1.0, 1.0], num))
    p["pneumothorax_gap"] = _column(rng.uniform(0.16, 0.36, num))
    _draw_focus(p, rng, "nodule", num)
    p["nodule_radius"] = _column(rng.uniform(0.05, 0.10, num))
    p["nodule_density"] = _column(rng.uniform(0.18, 0.32, num))
    present = {name: rng.random(num) < rate for name, rate in zip(_LABELS, _RATES, strict=True)}
    wider = _column(np.where(present["cardiomegaly"], rng.uniform(1.45, 1.75, num), 1))
    p["heart_left"], p["heart_right"] = p["heart_left"] * wider, p["heart_right"] * wider
    return present


def _chunks(num_images: int, size: int) -> Iterator[slice]:
    step = max(1, _CHUNK_PIXELS // size**2)
    return (slice(start, min(start + step, num_images)) for start in range(0, num_images, step))


def _shrink(planes: Array, factor: int) -> Array:
    """Average blocks of factor x factor pixels."""
    num, side, _ = planes.shape
    return planes.reshape(num, side // factor, factor, side // factor, factor).mean(axis=(2, 4))


def _chest_split(
    variant: str, split: str, num_images: int, size: int, seed: int, rows: NDArray[np.int64] | None = None
) -> PhantomSplit:
    rng = _generator(variant, split, seed)
    patient = _draw_patients(rng, num_images)
    p, texture = draw_anatomy(rng, patient), draw_texture(rng)
    findings = _draw_findings(variant, p, rng, patient)
    wanted = np.arange(num_images) if rows is None else rows
    merged = variant == "phantom"  # both kinds of opacity are one class
    num_masks = 1 if merged else len(_LABELS)
    factor = -(-2 * _MIN_SIZE // size)  # fine ribs are drawn larger and averaged
    side = size * factor
    images = np.empty((len(wanted), size, size), dtype=np.uint8)
    masks = np.zeros((len(wanted), num_masks, size, size), dtype=np.bool_)
    for places in _chunks(len(wanted), side):
        members = wanted[places]
        part = {name: value[members] for name, value in p.items()}
        shown = {name: value[members] for name, value in findings.items()}
        own = (_generator(variant, split, seed, 1, int(image)) for image in members)  # of each image: its grain
        grain = np.stack([rng.standard_normal((side, side), dtype=np.float32) for rng in own])
        film, strength = render_chest(part, shown, texture, grain)
        images[places] = np.rint(_shrink(film, factor)).astype(np.uint8)
        planes = [sum(strength.values(), np.float32(0))] if merged else [strength[name] for name in _LABELS]
        for index, plane in enumerate(planes):
            small = _shrink(np.asarray(plane), factor)
            peak = small.max(axis=(1, 2), keepdims=True)
            masks[places, index] = (small > _MASK_LEVEL * peak) & (peak > 0)
    found = [_find_parts(mask) for mask in masks]
    labels: NDArray[np.int64] = np.any(masks, axis=(2, 3)).astype(np.int64)
    return PhantomSplit(
        images=images,
        labels=labels[:, 0] if merged else labels,
        groups=np.array([f"{split}-{index:04d}" for index in patient[wanted]]),
        masks=masks,
        boxes=tuple(boxes for boxes, _ in found),
        box_labels=tuple(index for _, index in found),
    )


def _find_parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Clear an image's masks [L, H, W] of specks, in place, and box what is left.

    Returns:
        boxes [n, 4], xyxy px, one for each connected part; the index along L of each.
    """
    boxes: list[tuple[int, int, int, int]] = []
    index: list[int] = []
    for plane in np.flatnonzero(mask.any(axis=(1, 2))):
        parts, num_parts = ndimage.label(mask[plane])
        areas = np.bincount(parts.ravel(), minlength=num_parts + 1)
        areas[0] = 0
        kept = areas >= _SPECK * areas.max()
        kept[0] = False
        mask[plane] = kept[parts]
        for part, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
            if kept[part]:
                boxes.append((columns.start, rows.start, columns.stop, rows.stop))
                index.append(int(plane))
    return np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(index, dtype=np.int64)
