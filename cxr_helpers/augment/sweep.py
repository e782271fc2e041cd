"""One operation at a time, from one end of its range to the other, on one image: what a policy's number looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fields import spec_of
from .parts import inert_fields
from .policy import AugmentationPolicy, magnitude_fields
from .randaugment import OPERATIONS
from .views import NUM_DRAWS, Draw, OneView

__all__ = ["SWEPT", "TOGGLED", "Sweep", "sweep_operation"]

_SPECS = {item.name: spec_of(item) for item in magnitude_fields()}
_PROBABILITIES = {spec.group: name for name, spec in _SPECS.items() if spec.unit == "probability"}

# A draw of 0 or 1 takes these to either end of what their field allows.
_TWO_SIDED = {
    "rotation_deg": Draw.ROTATION,
    "shift": Draw.SHIFT_X,
    "brightness": Draw.BRIGHTNESS,
    "contrast": Draw.CONTRAST,
    "gamma": Draw.GAMMA_EXPONENT,
    "saturation": Draw.SATURATION,
    "hue": Draw.HUE,
}
_LOWER_END = {"zoom_max": "zoom_min", "crop_ratio_max": "crop_ratio_min", "blur_sigma_max": "blur_sigma_min"}
_BACKWARDS = ("crop_scale_min", "solarize_threshold")  # the smaller the stronger
_ALSO: dict[str, Mapping[str, float]] = {
    "crop_ratio_max": {"crop_scale_min": 0.5, "crop_scale_max": 0.5},  # of a whole image no ratio but 1 fits
    "randaugment_magnitude": {"randaugment_ops": 2},
}
_SHOWN_OPS = ("Rotate", "Solarize")  # one of RandAugment's moving and one of its changing operations

SWEPT: tuple[str, ...] = (
    *("crop_scale_min", "crop_ratio_max", "rotation_deg", "shift", "zoom_max", "brightness", "contrast", "gamma"),
    *("blur_sigma_max", "noise_std", "solarize_threshold", "randaugment_magnitude", "saturation", "hue"),
)
TOGGLED: tuple[str, ...] = ("flip_prob", "invert_prob", "gray_prob")  # applied or not, without a strength


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """Views of one image while one number moves.

    Args:
        field: the policy's field.
        operation: what it belongs to.
        unit: of the values.
        values: of the field, negative on the other side of a two-sided one; [K].
        captions: the values as the operation means them.
        views: float [K, C, S, S] in [0, 1].
        inert: whether such images cannot change.
    """

    field: str
    operation: str
    unit: str
    values: tuple[float, ...]
    captions: tuple[str, ...]
    views: Tensor
    inert: bool


def sweep_operation(image: Tensor, field: str, size: int, *, steps: int = 7, seed: int = 0) -> Sweep:
    """One image under one operation at `steps` strengths across the field's range for chest X-rays.

    Two-sided operations run from one side to the other, crops from the whole image to the smallest; an operation
    without strength is shown off and on. Crops are central, shifts horizontal; RandAugment rotates and solarizes.

    Args:
        image: uint8 [C, S, S].
        field: one of `SWEPT` or `TOGGLED`.
        size: side of the views in px.
        steps: values, at least 2.
        seed: of the pixel noise.

    Raises:
        ValueError: for another field, fewer than two steps, or an image that `Views` refuses.
    """
    if field not in (*SWEPT, *TOGGLED):
        raise ValueError(f"field must be one of {', '.join((*SWEPT, *TOGGLED))}, got {field!r}")
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    values = (0.0, 1.0) if field in TOGGLED else _values(field, steps)
    views: list[Tensor] = []
    for value in values:
        generator = torch.Generator(image.device).manual_seed(seed)
        draws = torch.full((1, 1, NUM_DRAWS), 0.5)
        if field in _TWO_SIDED:
            draws[..., _TWO_SIDED[field]] = float(value > 0)
        for place, name in enumerate(_SHOWN_OPS):
            draws[..., Draw.RANDAUGMENT + 2 * place] = (OPERATIONS.index(name) + 0.5) / len(OPERATIONS)
        views += OneView(_policy(field, value), size)(image[None], draws, generator)
    return Sweep(
        field=field,
        operation=_SPECS[field].group,
        unit=_SPECS[field].unit,
        values=values,
        captions=tuple(_caption(field, value) for value in values),
        views=torch.cat(views),
        inert=field in inert_fields(image.shape[0]),
    )


def _range(field: str) -> tuple[float, float]:
    return _SPECS[field].slider or (0.0, 1.0)


def _values(field: str, steps: int) -> tuple[float, ...]:
    low, high = _range(_LOWER_END.get(field, field))[0], _range(field)[1]
    if field in _TWO_SIDED:
        low = -high
    if field in _BACKWARDS:
        low, high = high, low
    values = [low + (high - low) * k / (steps - 1) for k in range(steps)]
    if field in ("crop_ratio_max", "zoom_max"):  # factors: half of the steps on either side of 1
        places = [2 * k / (steps - 1) - 1 for k in range(steps)]
        values = [high**place if place > 0 else low**-place for place in places]
    digits = 0 if field == "randaugment_magnitude" else 6
    return tuple(round(float(value), digits) for value in values)


def _policy(field: str, value: float) -> AugmentationPolicy:
    operation = _SPECS[field].group
    numbers = {field: abs(value) if field in _TWO_SIDED else value, **_ALSO.get(field, {})}
    if operation in _PROBABILITIES and field not in TOGGLED:
        numbers[_PROBABILITIES[operation]] = 1.0
    if field in _LOWER_END:
        numbers[_LOWER_END[field]] = value
    if field == "crop_scale_min":
        numbers["crop_scale_max"] = value
    return AugmentationPolicy(name=f"{field} swept", reason="shows one operation", **numbers)  # type: ignore[arg-type]


def _caption(field: str, value: float) -> str:
    if field in TOGGLED:
        return "applied" if value else "not applied"
    if _SPECS[field].unit == "factor in 1 ± value":
        return f"× {1 + value:.2f}"
    sign = "+" if value > 0 else ""
    texts = {
        "rotation_deg": f"{sign}{value:.0f}°",
        "hue": f"{sign}{value:.2f} turns",
        "shift": f"{sign}{value:.2f}",
        "gamma": f"x^{(1 + abs(value)) ** (1 if value > 0 else -1):.2f}",
        "zoom_max": f"× {value:.2f}",
        "blur_sigma_max": f"σ {value:.1f} px",
        "randaugment_magnitude": f"{value:.0f} of 30",
    }
    return texts.get(field, f"{value:.2f}").replace("-", "−")
