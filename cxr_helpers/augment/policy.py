"""What an augmentation policy is: numbers with units, ranges and reasons, which can be hashed, compared and moved.

A further operation is its numbers in `AugmentationPolicy`, a row of `OPERATIONS`, its columns in `views.Draw` and its
place in `views.Views`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from ..fields import KINDS, Spec, check, declare, require, spec_of

__all__ = ["OPERATIONS", "SPECS", "AugmentationPolicy", "Normalisation", "alone", "inert_fields", "range_of"]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, in units of the [0, 1] range: (x - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            finite = KINDS["tuple[float, ...]"][1](values)
            require(finite, name, "one finite number per channel, such as (0.5,)", values)
            object.__setattr__(self, name, tuple(map(float, values)))  # lists after JSON
        lengths = len(self.mean), len(self.std)
        require(lengths in ((1, 1), (3, 3)), "mean and std", "both 1 or 3 values", lengths)
        require(min(self.std) > 0, "std", "positive", self.std)

    def for_channels(self, channels: int) -> Normalisation:
        """The same normalisation for 1 or 3 channels: one value is repeated, three are averaged."""
        if channels == len(self.mean):
            return self
        if channels == 3:
            return Normalisation(self.mean * 3, self.std * 3)
        return Normalisation((sum(self.mean) / 3,), (sum(self.std) / 3,))


def _number(default: float, group: str, unit: str, slider: tuple[float, float], why: str,
            legal: tuple[float, float] = (0.0, 1.0)) -> Any:  # fmt: skip
    """A number of an operation with its unit, the range sensible on chest X-rays, the reason and the legal range."""
    return declare(default, why, group=group, unit=unit, slider=slider, low=legal[0], high=legal[1])


def _probability(group: str, high: float, why: str) -> Any:
    return _number(0.0, group, "probability", (0.0, high), why)


@dataclass(frozen=True, kw_only=True)
class AugmentationPolicy:
    """One set of random operations; the defaults switch every one of them off.

    The order in which they act is fixed: affine, crop and flips as one resampling, then equalize, jitter, grayscale,
    gamma, blur, motion, noise, solarize, invert, RandAugment.

    Raises:
        ValueError: for a number outside its legal range, a minimum above its maximum, or a crop that never fits.
    """

    name: str = declare("", "its key in POLICIES")
    reason: str = declare("", "what it is for")
    normalisation: Normalisation = Normalisation((0.5,), (0.5,))

    crop_scale_min: float = _number(
        1.0, "crop", "of the area", (0.2, 1), "below .2 two crops may share no lung", (0.01, 1)
    )
    crop_scale_max: float = _number(1.0, "crop", "of the area", (0.6, 1), "1 shows whole thoraces too", (0.01, 1))
    crop_ratio_min: float = _number(1.0, "crop", "width / height", (0.75, 1), "its shape is diagnostic", (0.1, 10))
    crop_ratio_max: float = _number(1.0, "crop", "width / height", (1, 4 / 3), "its shape is diagnostic", (0.1, 10))
    crop_centring: float = _number(0.0, "crop", "of the way", (0, 1), "lungs are in the middle; 1 crops nowhere else")
    flip_prob: float = _probability("flip", 0.5, "either lung may be ill; the heart is mirrored")
    vertical_flip_prob: float = _probability("vertical flip", 0.5, "upside down: no film is hung so")
    affine_prob: float = _probability("affine", 1.0, "patients are never placed alike")
    rotation_deg: float = _number(0.0, "affine", "degrees, ±", (0, 20), "films are tilted by a few degrees", (0, 180))
    shift: float = _number(0.0, "affine", "of the side, ±", (0, 0.15), "off-centre patients", (0, 0.5))
    zoom_min: float = _number(1.0, "affine", "factor", (0.85, 1), "distance to the detector", (0.25, 4))
    zoom_max: float = _number(1.0, "affine", "factor", (1, 1.2), "distance to the detector", (0.25, 4))
    equalize_prob: float = _probability("equalize", 0.5, "removes exposure and windowing; noise in the dark grows")
    jitter_prob: float = _probability("jitter", 1.0, "exposure and windowing vary between devices")
    brightness: float = _number(0.0, "jitter", "factor in 1 ± value", (0, 0.5), "above .5 lungs clip to white", (0, 2))
    contrast: float = _number(0.0, "jitter", "factor in 1 ± value", (0, 0.5), "above .5 faint opacities vanish", (0, 2))
    saturation: float = _number(0.0, "jitter", "factor in 1 ± value", (0, 0.4), "does nothing to one channel", (0, 2))
    hue: float = _number(0.0, "jitter", "turns, ±", (0, 0.1), "does nothing to one channel", (0, 0.5))
    gray_prob: float = _probability("grayscale", 0.2, "does nothing to one channel")
    gamma_prob: float = _probability("gamma", 1.0, "the film's or detector's response curve")
    gamma: float = _number(0.0, "gamma", "exponent (1 + value)^±1", (0, 0.5), "black and white points stay", (0, 4))
    blur_prob: float = _probability("blur", 0.5, "focal spot, motion and detector pitch")
    blur_sigma_min: float = _number(0.1, "blur", "px of the view", (0.1, 1), "still sharp", (0.01, 20))
    blur_sigma_max: float = _number(2.0, "blur", "px of the view", (0.5, 2), "more hides fine texture", (0.01, 20))
    motion_prob: float = _probability("motion", 0.3, "the patient breathes")
    motion_px: float = _number(1.0, "motion", "px of the view, at most", (1, 7), "more hides ribs", (1, 31))
    noise_prob: float = _probability("noise", 1.0, "quantum noise depends on the dose")
    noise_std: float = _number(0.0, "noise", "of the [0, 1] range", (0, 0.08), "more hides faint opacities")
    solarize_prob: float = _probability("solarize", 0.2, "no counterpart in radiography")
    solarize_threshold: float = _number(0.5, "solarize", "of the [0, 1] range", (0.3, 1), "inverts what is above")
    invert_prob: float = _probability("invert", 0.5, "MONOCHROME1 and 2 store opposite greys")
    randaugment_ops: int = _number(0, "randaugment", "operations", (0, 3), "drawn per image", (0, 4))
    randaugment_magnitude: int = _number(9, "randaugment", "of 30", (0, 15), "anatomy distorts", (0, 30))

    def __post_init__(self) -> None:
        check(self)
        shown = "a Normalisation(mean, std)"
        require(isinstance(self.normalisation, Normalisation), "normalisation", shown, self.normalisation)
        for name in ("crop_scale", "crop_ratio", "zoom", "blur_sigma"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            require(low <= high, f"{name}_min", f"at most {name}_max={high:g}", low)
        ratio = min(max(1.0, self.crop_ratio_min), self.crop_ratio_max)  # the legal ratio nearest to a square
        fits = min(ratio, 1 / ratio)
        expected = f"at most {fits:.3g} for a crop of ratio {ratio:g} to fit a square"
        require(self.crop_scale_min <= fits + 1e-9, "crop_scale_min", expected, self.crop_scale_min)

    def describe(self, channels: int = 1) -> tuple[Row, ...]:
        """One row per enabled operation, in the order in which they act.

        `effect` is "none" where an operation leaves images of 1 or 3 channels as they are.
        """
        enabled = {name: one for name, one in OPERATIONS.items() if one.probability_in(self) > 0}
        effects = {name: "none" if one.colour and channels == 1 else "changes it" for name, one in enabled.items()}
        return tuple(
            Row(name, one.probability_in(self), one.magnitude_in(self), effects[name]) for name, one in enabled.items()
        )


_DECLARED = {item.name: spec_of(item) for item in fields(AugmentationPolicy) if item.metadata}
SPECS: dict[str, Spec] = {name: spec for name, spec in _DECLARED.items() if spec.group}  # of the numbers


class Row(NamedTuple):
    """One row of `AugmentationPolicy.describe`: what an operation does, how often and how strongly."""

    operation: str
    probability: float
    magnitude: str  # with units
    effect: str  # on an image of the channels asked for: "changes it" or "none"


@dataclass(frozen=True)
class Operation:
    """How often an operation acts, and how strongly, in words that name the numbers it reads."""

    often: str  # the number that says so; empty: whenever another is not at its default
    words: str
    acts: bool = False  # even where what it reads is at its default
    colour: bool = False  # leaves an image of one channel as it is

    @property
    def reads(self) -> set[str]:
        """The numbers that it depends on."""
        return {name for name in (self.often, *re.findall(r"{(\w+)", self.words)) if name}

    def probability_in(self, policy: AugmentationPolicy) -> float:
        """How often a policy applies it, 0 where it is off."""
        strengths = self.reads - {self.often}
        moved = self.acts or not strengths or any(getattr(policy, name) != getattr(_OFF, name) for name in strengths)
        return moved * min(1.0, getattr(policy, self.often) if self.often else 1.0)

    def magnitude_in(self, policy: AugmentationPolicy) -> str:
        """How strongly a policy applies it; what is at its default is left out beside what is not."""
        said, off = (self.words.format(**vars(one)).split(", ") for one in (policy, _OFF))
        return ", ".join([part for part in said if part not in off] or said)


_OFF = AugmentationPolicy()
_WINDOW = (
    "{crop_scale_min:.3g}–{crop_scale_max:.3g} of the area, width / height {crop_ratio_min:.3g}–{crop_ratio_max:.3g}, "
    "moved {crop_centring:g} of the way to the middle"
)
_PLACED = "rotation ±{rotation_deg:g}°, shift ±{shift:g} of the side, zoom {zoom_min:.3g}–{zoom_max:.3g}"

OPERATIONS: dict[str, Operation] = {  # in the order in which they act
    "affine": Operation("affine_prob", _PLACED),
    "crop": Operation("", _WINDOW),
    "flip": Operation("flip_prob", "left to right"),
    "vertical flip": Operation("vertical_flip_prob", "upside down"),
    "equalize": Operation("equalize_prob", "flat histogram"),
    "brightness": Operation("jitter_prob", "factor 1 ± {brightness:g}"),
    "contrast": Operation("jitter_prob", "factor 1 ± {contrast:g}"),
    "saturation": Operation("jitter_prob", "factor 1 ± {saturation:g}", colour=True),
    "hue": Operation("jitter_prob", "±{hue:g} turns", colour=True),
    "grayscale": Operation("gray_prob", "weighted mean of the channels", colour=True),
    "gamma": Operation("gamma_prob", "exponent (1 + {gamma:g})^±1"),
    "blur": Operation("blur_prob", "sigma {blur_sigma_min:.3g}–{blur_sigma_max:.3g} px", acts=True),
    "motion": Operation("motion_prob", "along a line of up to {motion_px:g} px"),
    "noise": Operation("noise_prob", "std {noise_std:g} of the range"),
    "solarize": Operation("solarize_prob", "inverts from {solarize_threshold:g} up", acts=True),
    "invert": Operation("invert_prob", "1 - x"),
    "randaugment": Operation(
        "randaugment_ops", "{randaugment_ops} operations at {randaugment_magnitude} of 30", acts=True
    ),
}


def alone(policy: AugmentationPolicy, operation: str) -> AugmentationPolicy:
    """A policy that does one operation of `OPERATIONS` with another's numbers and nothing else."""
    one = OPERATIONS[operation]
    values: dict[str, Any] = {name: getattr(policy, name) for name in ("reason", "normalisation", *one.reads)}
    return AugmentationPolicy(name=f"{operation} of {policy.name}", **values)


def range_of(name: str) -> tuple[float, float]:
    """The part of a number's legal range that is sensible on chest X-rays."""
    return SPECS[name].slider or (SPECS[name].low, SPECS[name].high)


def inert_fields(channels: int) -> set[str]:
    """The numbers that change nothing in an image of that many channels: those that operations on colour alone read."""
    rest = set().union(*(one.reads for one in OPERATIONS.values() if not one.colour))
    return set(SPECS) - rest if channels == 1 else set()
