"""What an augmentation policy is: magnitudes and probabilities, their units, ranges and reasons.

A policy holds numbers only, so that it can be hashed, logged, compared, changed from the command line and
moved by sliders. `augment` turns it into views; nothing here draws at random or touches a tensor.
"""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, fields
from typing import Any

from ..fields import declare, spec_of

__all__ = ["AugmentationPolicy", "Normalisation", "Operation", "describe", "magnitude_fields"]

COLOUR_ONLY = ("saturation", "hue", "grayscale")  # operations that leave a one-channel image as it is


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, in units of the [0, 1] range: (x - mean) / std.

    Raises:
        ValueError: if the lengths differ, are neither 1 nor 3, a deviation is not positive, or a value not finite.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(f"mean and std must both hold 1 or 3 values, got {len(self.mean)} and {len(self.std)}")
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std must be positive and finite, got {self.std}")
        if not all(math.isfinite(value) for value in self.mean):
            raise ValueError(f"mean must be finite, got {self.mean}")

    def for_channels(self, channels: int) -> Normalisation:
        """The same normalisation for 1 or 3 channels: one value is repeated, three are averaged."""
        if channels == len(self.mean):
            return self
        if len(self.mean) == 1:
            return Normalisation(self.mean * channels, self.std * channels)
        if channels != 1:
            raise ValueError(f"channels must be 1 or 3, got {channels}")
        return Normalisation((sum(self.mean) / 3,), (sum(self.std) / 3,))


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    """One number to a channel, from a tuple, or a list after JSON."""
    try:
        if not any(isinstance(value, (str, bool)) for value in values):
            return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be one number per channel, such as (0.5,), got {values!r}")


def _magnitude(
    default: float,
    operation: str,
    unit: str,
    low: float,
    high: float,
    reason: str,
    *,
    minimum: float = 0.0,
    maximum: float = 1.0,
) -> Any:
    """A field of an operation with its unit, the range sensible on chest X-rays (low, high) and the legal one."""
    return declare(default, reason, group=operation, unit=unit, slider=(low, high), low=minimum, high=maximum)


def _probability(operation: str, high: float, reason: str) -> Any:
    return _magnitude(0.0, operation, "probability", 0.0, high, reason)


@dataclass(frozen=True, kw_only=True)
class AugmentationPolicy:
    """One set of random operations; the defaults switch every one of them off.

    Each number is declared with the operation it belongs to, its unit, the range that is sensible for chest X-rays, the
    legal range and the reason (`spec_of` each of `magnitude_fields`). The order in which the
    operations act is fixed: affine, crop and flip as one resampling, then jitter, grayscale, gamma, blur,
    noise, solarize, invert, RandAugment.

    Raises:
        ValueError: for a number outside its legal range, a minimum above its maximum, or a crop that never
        fits.
    """

    name: str
    reason: str
    normalisation: Normalisation = Normalisation((0.5,), (0.5,))

    crop_scale_min: float = _magnitude(
        1.0, "crop", "of the area", 0.2, 1.0, "below .2 two crops may share no lung", minimum=0.01
    )
    crop_scale_max: float = _magnitude(1.0, "crop", "of the area", 0.6, 1.0, "1 shows whole thoraces too", minimum=0.01)
    crop_ratio_min: float = _magnitude(
        1.0, "crop", "width / height", 0.75, 1.0, "its shape is diagnostic", minimum=0.1, maximum=10.0
    )
    crop_ratio_max: float = _magnitude(
        1.0, "crop", "width / height", 1.0, 4 / 3, "its shape is diagnostic", minimum=0.1, maximum=10.0
    )
    flip_prob: float = _probability("flip", 0.5, "either lung may be ill; the heart is mirrored")
    affine_prob: float = _probability("affine", 1.0, "patients are never placed alike")
    rotation_deg: float = _magnitude(
        0.0, "affine", "degrees, ±", 0.0, 20.0, "films are tilted by a few degrees", maximum=180.0
    )
    shift: float = _magnitude(0.0, "affine", "of the side, ±", 0.0, 0.15, "off-centre patients", maximum=0.5)
    zoom_min: float = _magnitude(
        1.0, "affine", "factor", 0.85, 1.0, "distance to the detector", minimum=0.25, maximum=4.0
    )
    zoom_max: float = _magnitude(
        1.0, "affine", "factor", 1.0, 1.2, "distance to the detector", minimum=0.25, maximum=4.0
    )
    jitter_prob: float = _probability("jitter", 1.0, "exposure and windowing vary between devices")
    brightness: float = _magnitude(
        0.0, "jitter", "factor in 1 ± value", 0.0, 0.5, "above .5 lungs clip to white", maximum=2.0
    )
    contrast: float = _magnitude(
        0.0, "jitter", "factor in 1 ± value", 0.0, 0.5, "above .5 faint opacities vanish", maximum=2.0
    )
    saturation: float = _magnitude(
        0.0, "jitter", "factor in 1 ± value", 0.0, 0.4, "does nothing to one channel", maximum=2.0
    )
    hue: float = _magnitude(0.0, "jitter", "turns, ±", 0.0, 0.1, "does nothing to one channel", maximum=0.5)
    gray_prob: float = _probability("grayscale", 0.2, "does nothing to one channel")
    gamma_prob: float = _probability("gamma", 1.0, "the film's or detector's response curve")
    gamma: float = _magnitude(
        0.0, "gamma", "exponent to 1 + value", 0.0, 0.5, "black and white points stay", maximum=4.0
    )
    blur_prob: float = _probability("blur", 0.5, "focal spot, motion and detector pitch")
    blur_sigma_min: float = _magnitude(
        0.1, "blur", "px of the view", 0.1, 1.0, "still sharp", minimum=0.01, maximum=20.0
    )
    blur_sigma_max: float = _magnitude(
        2.0, "blur", "px of the view", 0.5, 2.0, "more hides fine texture", minimum=0.01, maximum=20.0
    )
    noise_prob: float = _probability("noise", 1.0, "quantum noise depends on the dose")
    noise_std: float = _magnitude(0.0, "noise", "of the [0, 1] range", 0.0, 0.08, "more hides faint opacities")
    solarize_prob: float = _probability("solarize", 0.2, "no counterpart in radiography")
    solarize_threshold: float = _magnitude(0.5, "solarize", "of the [0, 1] range", 0.3, 1.0, "inverts what is above")
    invert_prob: float = _probability("invert", 0.5, "MONOCHROME1 and 2 store opposite greys")
    randaugment_ops: int = _magnitude(0, "randaugment", "operations", 0, 3, "drawn per image", maximum=4)
    randaugment_magnitude: int = _magnitude(9, "randaugment", "of 30", 0, 15, "anatomy distorts", maximum=30)

    def __post_init__(self) -> None:
        for name in ("name", "reason"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} of a policy must be text, got {getattr(self, name)!r}")
        if not isinstance(self.normalisation, Normalisation):
            raise ValueError(f"normalisation must be a Normalisation(mean, std), got {self.normalisation!r}")
        for item in magnitude_fields():
            _check_number(self, item)
        for low, high in (
            ("crop_scale_min", "crop_scale_max"),
            ("crop_ratio_min", "crop_ratio_max"),
            ("zoom_min", "zoom_max"),
            ("blur_sigma_min", "blur_sigma_max"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must be at most {high}={getattr(self, high):g}, got {getattr(self, low):g}")
        ratio = min(max(1.0, self.crop_ratio_min), self.crop_ratio_max)  # the legal ratio nearest to a square
        fits = min(ratio, 1 / ratio)
        if self.crop_scale_min > fits + 1e-9:
            raise ValueError(
                f"crop_scale_min must be at most {fits:.3g} for a crop of ratio {ratio:g} to fit a square, "
                f"got {self.crop_scale_min:g}"
            )

    def describe(self, channels: int = 1) -> tuple[Operation, ...]:
        """One row per enabled operation, in the order in which they act."""
        return describe(self, channels)

    def enabled_operations(self) -> tuple[str, ...]:
        """Names of the operations that this policy can apply."""
        return tuple(row.operation for row in describe(self, 3))

    def inert_operations(self, channels: int) -> tuple[str, ...]:
        """Names of the enabled operations that do nothing to an image of that many channels."""
        return tuple(row.operation for row in describe(self, channels) if row.effect == "none")


@dataclass(frozen=True)
class Operation:
    """One row of `describe`: what an operation does, how often and how strongly, and what it teaches."""

    operation: str
    probability: float
    magnitude: str  # with units
    invariance: str
    effect: str  # on an image of the channels asked for: "changes it" or "none"


def magnitude_fields() -> tuple[Field[Any], ...]:
    """The numbers, each with its `fields.Spec`: `group` is the operation, `slider` the range for chest X-rays."""
    return tuple(item for item in fields(AugmentationPolicy) if "spec" in item.metadata)


def _check_number(policy: AugmentationPolicy, item: Field[Any]) -> None:
    """Raises unless the number is legal; stores it as float or int, so that 1 equals 1.0 in JSON."""
    value = getattr(policy, item.name)
    low, high = spec_of(item).low, spec_of(item).high
    whole = item.type == "int"
    kind = "a whole number" if whole else "a number"
    legal = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not legal or (whole and value != int(value)):
        raise ValueError(f"{item.name} must be {kind} between {low:g} and {high:g}, got {value!r}")
    object.__setattr__(policy, item.name, int(value) if whole else float(value))


def _pair(low: float, high: float) -> str:
    return f"{low:.3g}" if math.isclose(low, high) else f"{low:.3g}–{high:.3g}"


def _crop_row(policy: AugmentationPolicy) -> tuple[float, str]:
    scale = _pair(policy.crop_scale_min, policy.crop_scale_max)
    ratio = _pair(policy.crop_ratio_min, policy.crop_ratio_max)
    enabled = (scale, ratio) != ("1", "1")
    return float(enabled), f"{scale} of the area, width / height {ratio}"


def _affine_row(policy: AugmentationPolicy) -> tuple[float, str]:
    parts = [f"rotation ±{policy.rotation_deg:g}°"] * (policy.rotation_deg > 0)
    parts += [f"shift ±{policy.shift:g} of the side"] * (policy.shift > 0)
    zooms = policy.zoom_min < 1 or policy.zoom_max > 1
    parts += [f"zoom {_pair(policy.zoom_min, policy.zoom_max)}"] * zooms
    return policy.affine_prob * bool(parts), ", ".join(parts)


def _factor(value: float) -> str:
    return f"factor {max(0.0, 1 - value):.3g}–{1 + value:.3g}"


def _rows(policy: AugmentationPolicy) -> list[tuple[str, float, str, str]]:
    """(operation, probability, magnitude, invariance) of every operation; probability 0 where disabled."""
    jitter, ops, strength = policy.jitter_prob, policy.randaugment_ops, policy.randaugment_magnitude
    gamma_prob, noise_prob = (
        policy.gamma_prob * (policy.gamma > 0),
        policy.noise_prob * (policy.noise_std > 0),
    )
    affine_prob, affine_text = _affine_row(policy)
    crop_prob, crop_text = _crop_row(policy)
    sigma = _pair(policy.blur_sigma_min, policy.blur_sigma_max)
    exponent = _pair(1 / (1 + policy.gamma), 1 + policy.gamma)
    light = jitter * (policy.brightness > 0), jitter * (policy.contrast > 0)
    colour = jitter * (policy.saturation > 0), jitter * (policy.hue > 0)
    return [
        ("affine", affine_prob, affine_text, "how the patient is placed"),
        ("crop", crop_prob, crop_text, "a part of the thorax tells of the whole"),
        ("flip", policy.flip_prob, "left to right", "which lung is affected"),
        ("brightness", light[0], _factor(policy.brightness), "exposure"),
        ("contrast", light[1], _factor(policy.contrast), "tube voltage and windowing"),
        ("saturation", colour[0], _factor(policy.saturation), "vividness of colours"),
        ("hue", colour[1], f"±{policy.hue:g} turns", "tint"),
        ("grayscale", policy.gray_prob, "weighted mean of the channels", "colour at all"),
        ("gamma", gamma_prob, f"exponent {exponent}", "response curve of the detector"),
        ("blur", policy.blur_prob, f"sigma {sigma} px", "sharpness"),
        ("noise", noise_prob, f"std {policy.noise_std:g} of the range", "dose"),
        (
            "solarize",
            policy.solarize_prob,
            f"inverts from {policy.solarize_threshold:g} up",
            "order of greys",
        ),
        ("invert", policy.invert_prob, "1 - x", "polarity of the greys"),
        ("randaugment", float(ops > 0), f"{ops} operations at {strength} of 30", "several of the above"),
    ]


def describe(policy: AugmentationPolicy, channels: int = 1) -> tuple[Operation, ...]:
    """One row per enabled operation, in the order in which they act.

    Args:
        policy: the policy to describe.
        channels: 1 or 3; `effect` is "none" where an operation leaves such images as they are.

    Returns:
        Rows that `pandas.DataFrame` takes as they are.

    Raises:
        ValueError: if channels is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    return tuple(
        Operation(*row, effect="none" if channels == 1 and row[0] in COLOUR_ONLY else "changes it")
        for row in _rows(policy)
        if row[1] > 0
    )
