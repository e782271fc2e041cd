"""One operation at a time, from one end of its range to the other, on one image: what a policy's number looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..fields import require
from .policy import SPECS, AugmentationPolicy, inert_fields, range_of
from .randaugment import OPERATIONS as RANDAUGMENT
from .views import NUM_DRAWS, Draw, OneView

__all__ = ["SWEPT", "TOGGLED", "Sweep", "sweep_operation"]

SWEPT = (
    *("crop_scale_min", "crop_ratio_max", "rotation_deg", "shift", "zoom_max", "brightness", "contrast", "gamma"),
    *("blur_sigma_max", "motion_px", "noise_std", "solarize_threshold", "randaugment_magnitude", "saturation", "hue"),
)
TOGGLED = ("flip_prob", "vertical_flip_prob", "equalize_prob", "invert_prob", "gray_prob")  # without a strength
STEPS = 7
_BACKWARDS = ("crop_scale_min", "solarize_threshold")  # the smaller the stronger
_ALSO: dict[str, dict[str, Any]] = {
    "crop_ratio_max": {"crop_scale_min": 0.5, "crop_scale_max": 0.5},  # of a whole image no ratio but 1 fits
    "randaugment_magnitude": {"randaugment_ops": 2},
}
_SHOWN_OPS = ("Rotate", "Solarize")  # one of RandAugment's moving and one of its changing operations


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """Views of one image while one number moves.

    Args:
        field: the policy's number, and with a `_max` or `_min` its other end.
        values: of the field, negative on the other side of a two-sided one; [K].
        views: float [K, C, S, S] in [0, 1].
        inert: whether such images cannot change.
    """

    field: str
    values: tuple[float, ...]
    views: Tensor
    inert: bool

    @property
    def captions(self) -> tuple[str, ...]:
        """The values in words."""
        if self.field in TOGGLED:
            return "not applied", "applied"
        sign = "+" if _two_sided(self.field) else ""
        return tuple(f"{value:{sign}.3g}".replace("-", "−") for value in self.values)


def sweep_operation(image: Tensor, field: str, size: int) -> Sweep:
    """One image under one operation across the field's range for chest X-rays.

    Two-sided operations run from one side to the other, crops from the whole image to the smallest, about the centre;
    an operation without strength is shown off and on; RandAugment rotates and solarizes.

    Args:
        image: uint8 [C, S, S].
        field: one of `SWEPT` or `TOGGLED`.
        size: side of the views in px.
    """
    require(field in (*SWEPT, *TOGGLED), "field", f"one of {', '.join((*SWEPT, *TOGGLED))}", field)
    values, views = _values(field), list[Tensor]()
    for value in values:
        middle = 0.5 if not _two_sided(field) else float(value > 0) * (1 - 2**-24)  # a draw lies below 1
        draws = torch.full((1, 1, NUM_DRAWS), middle)
        for place, name in enumerate(_SHOWN_OPS):
            draws[..., Draw.RANDAUGMENT + 2 * place] = (RANDAUGMENT.index(name) + 0.5) / len(RANDAUGMENT)
        noise = torch.Generator(image.device).manual_seed(0)
        views += OneView(_policy(field, value), size)(image[None], draws, noise)
    return Sweep(field=field, values=values, views=torch.cat(views), inert=field in inert_fields(image.shape[0]))


def _two_sided(field: str) -> bool:
    return "±" in SPECS[field].unit


def ends_of(field: str) -> tuple[str, ...]:
    """A field and, of one with a `_min` and a `_max`, both."""
    stem = field.removesuffix("_min").removesuffix("_max")
    return (field,) if stem == field else (f"{stem}_min", f"{stem}_max")


def _values(field: str) -> tuple[float, ...]:
    if field in TOGGLED:
        return 0.0, 1.0
    low, high = range_of(ends_of(field)[0])[0], range_of(ends_of(field)[-1])[1]
    ends = (high, low) if field in _BACKWARDS else (-high if _two_sided(field) else low, high)
    return tuple(np.linspace(*ends, STEPS).round(0 if field == "randaugment_magnitude" else 6).tolist())


def _policy(field: str, value: float) -> AugmentationPolicy:
    often = [name for name, spec in SPECS.items() if spec.group == SPECS[field].group and name.endswith("_prob")]
    number = int(value) if field == "randaugment_magnitude" else abs(value)
    numbers: dict[str, Any] = dict.fromkeys(often, 1.0) | dict.fromkeys(ends_of(field), number)
    return AugmentationPolicy(name=f"{field} swept", **numbers, **_ALSO.get(field, {}))
