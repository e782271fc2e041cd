"""The catalogue of augmentation policies, each with the reason for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from ..fields import kind_of, read, require
from .policy import SPECS, AugmentationPolicy, Normalisation

__all__ = ["POLICIES", "get_policy"]

_IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))  # std .228 as the assignment gives it


def _crop(scale_min: float, ratio: tuple[float, float] = (3 / 4, 4 / 3), flip: float = 0.5) -> dict[str, Any]:
    """Crops from that part of the area up, of torchvision's shapes unless others are given, and a flip."""
    return {"crop_scale_min": scale_min, "crop_ratio_min": ratio[0], "crop_ratio_max": ratio[1], "flip_prob": flip}


def _do(operation: str, often: float, **numbers: float) -> dict[str, Any]:
    """The numbers of an operation that acts so often."""
    return {f"{operation}_prob": often, **numbers}


_NUMBERS: dict[str, dict[str, Any]] = {
    "none": {"reason": "Identity: for probes, baselines and plots."},
    "ref": {
        "reason": "The assignment's reference set, fixed, against which others are compared.",
        **_do("affine", 0.5, rotation_deg=10.0),
        **_crop(0.5),
        **_do("jitter", 0.5, brightness=0.2, contrast=0.2),
        "invert_prob": 0.5,
    },
    "imagenet": {
        "reason": "The natural-image recipe of the assignment, the starting point that should work badly.",
        "normalisation": _IMAGENET,
        **_crop(0.08),
        **_do("jitter", 0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1),
        "gray_prob": 0.2,
        "blur_prob": 0.5,
        "solarize_prob": 0.1,
    },
    "cifar": {
        "reason": "The CIFAR-10 recipe with the best published 100-epoch probe: no blur, no normalisation.",
        "normalisation": Normalisation((0.0,), (1.0,)),
        **_crop(0.2),
        **_do("jitter", 0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        "gray_prob": 0.1,
    },
    "student": {
        "reason": "The own set of the report this project starts from; the noise level is not given there.",
        **_crop(0.5, (0.75, 1.25)),
        **_do("affine", 1.0, rotation_deg=15.0, shift=0.1, zoom_min=0.9, zoom_max=1.1),
        **_do("noise", 1.0, noise_std=0.05),
    },
    "ssl": {
        "reason": "This project's own set for chest X-rays, what differs between exposures of one disease: no shift "
        "or zoom, which crops already give without black borders; contrast and gamma so that greys do not identify an "
        "image; blur and noise rare and weak, as faint texture is the finding; inversion rare, as an opacity is "
        "bright; no solarization, which exchanges air and bone, and no colour, which one channel does not have.",
        **_crop(0.3),
        **_do("affine", 0.8, rotation_deg=10.0),
        **_do("jitter", 0.8, brightness=0.3, contrast=0.4),
        **_do("gamma", 0.5, gamma=0.4),
        **_do("blur", 0.2, blur_sigma_max=1.0),
        **_do("noise", 0.3, noise_std=0.02),
        "invert_prob": 0.2,
    },
    "soft": {
        "reason": "Only what two exposures of one patient could differ by; how much strength matters.",
        **_crop(0.7),
        **_do("affine", 0.5, rotation_deg=5.0),
        **_do("jitter", 0.5, brightness=0.1, contrast=0.1),
        **_do("noise", 0.3, noise_std=0.01),
    },
    "randaugment": {
        "reason": "RandAugment 2 operations at 9 of 30 behind a crop and a flip: nothing tuned for X-rays.",
        **_crop(0.5),
        "randaugment_ops": 2,
        "randaugment_magnitude": 9,
    },
    "pretext": {
        "reason": "For tasks that ask which way up an image is or whether its parts are in place: nothing that turns, "
        "mirrors or shifts it, which would be the answer.",
        **_crop(0.6, flip=0.0),
        **_do("jitter", 0.8, brightness=0.3, contrast=0.3),
    },
    "xray": {
        "reason": "For backbones of detectors: what differs between films, equalised histograms among it, and both "
        "flips, since a detector need not know left from right or up from down.",
        **_crop(0.3),
        "vertical_flip_prob": 0.5,
        **_do("affine", 0.8, rotation_deg=10.0),
        "equalize_prob": 0.2,
        **_do("jitter", 0.8, brightness=0.3, contrast=0.4),
        **_do("blur", 0.2, blur_sigma_max=1.0),
        **_do("noise", 0.3, noise_std=0.02),
    },
    "detect": {
        "reason": "For training detectors: pose, exposure and breath, and nothing that hides what a box frames.",
        "flip_prob": 0.5,
        **_do("affine", 0.8, rotation_deg=5.0, shift=0.06, zoom_min=0.9, zoom_max=1.1),
        **_do("jitter", 0.5, brightness=0.2, contrast=0.2),
        **_do("gamma", 0.5, gamma=0.2),
        **_do("motion", 0.1, motion_px=5.0),
        **_do("noise", 0.2, noise_std=0.01),
    },
    "crops": {
        "reason": "For masked autoencoding, whose masks are its augmentation: crops of half the area and more, since "
        "findings are local, and a flip.",
        **_crop(0.5),
    },
    "randaugment_m6": {
        "reason": "For fine-tuning as after masked autoencoding on films: RandAugment 2 operations at magnitude 6, of "
        "timm's 10; here that is 18 of 30.",
        **_crop(0.5),
        "randaugment_ops": 2,
        "randaugment_magnitude": 18,
    },
    "supervised": {
        "reason": "For supervised training and fine-tuning: no operation may hide what the label names.",
        **_crop(0.8, (0.9, 1 / 0.9)),
        **_do("affine", 0.5, rotation_deg=7.0),
        **_do("jitter", 0.5, brightness=0.1, contrast=0.1),
    },
}
POLICIES = {name: AugmentationPolicy(name=name, **numbers) for name, numbers in _NUMBERS.items()}


def get_policy(name: str, changes: Mapping[str, Any] | None = None) -> AugmentationPolicy:
    """The policy of that name, with some of its numbers changed.

    Args:
        name: a key of `POLICIES`.
        changes: {field: number}; the policy's name then tells of them.

    Raises:
        ValueError: for an unknown policy or field, or an illegal number.
    """
    require(name in POLICIES, "policy", f"one of {', '.join(POLICIES)}", name)
    if not changes:
        return POLICIES[name]
    for key in changes:
        require(key in SPECS, "a policy's field", f"one of {', '.join(SPECS)}", key)
    label = f"{name} with " + ", ".join(f"{key}={value}" for key, value in sorted(changes.items()))
    kinds = {item.name: kind_of(item) for item in fields(AugmentationPolicy)}
    words = {key: read(key, value, kinds[key]) for key, value in changes.items() if isinstance(value, str)}
    return replace(POLICIES[name], name=label, **{**changes, **words})
