"""Batched random views with parameters of their own for each image, and the one deterministic transform."""

from typing import TYPE_CHECKING

from ..lazy import lazily
from .catalogue import POLICIES, get_policy
from .parts import (
    ALL_OPERATIONS,
    alone,
    changed_fields,
    code_line,
    every_operation,
    field_groups,
    fields_of,
    inert_fields,
    range_notes,
    read_code_line,
)
from .policy import AugmentationPolicy, Normalisation, Operation, describe, magnitude_fields

if TYPE_CHECKING:
    from .geometry import CropSampler, affine_map, compose, crop_map, flip_map, resample, shear_map
    from .photometric import (
        adjust_brightness,
        adjust_contrast,
        adjust_gamma,
        adjust_hue,
        adjust_saturation,
        apply_where,
        blur_kernel_size,
        gaussian_blur,
        grayscale,
        invert,
        solarize,
    )
    from .randaugment import MAX_OPS, OPERATIONS, RandAugment
    from .sweep import TOGGLED, Sweep
    from .views import NUM_DRAWS, Draw, OneView, TwoViews, Views, draw_table, eval_transform, normalise

__all__ = [
    "ALL_OPERATIONS",
    "MAX_OPS",
    "NUM_DRAWS",
    "OPERATIONS",
    "POLICIES",
    "TOGGLED",
    "AugmentationPolicy",
    "CropSampler",
    "Draw",
    "Normalisation",
    "OneView",
    "Operation",
    "RandAugment",
    "Sweep",
    "TwoViews",
    "Views",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_gamma",
    "adjust_hue",
    "adjust_saturation",
    "affine_map",
    "alone",
    "apply_where",
    "blur_kernel_size",
    "changed_fields",
    "code_line",
    "compose",
    "crop_map",
    "describe",
    "draw_table",
    "eval_transform",
    "every_operation",
    "field_groups",
    "fields_of",
    "flip_map",
    "gaussian_blur",
    "get_policy",
    "grayscale",
    "inert_fields",
    "invert",
    "magnitude_fields",
    "normalise",
    "range_notes",
    "read_code_line",
    "resample",
    "shear_map",
    "solarize",
]

lazily(
    __name__,
    {
        "geometry": "CropSampler affine_map compose crop_map flip_map resample shear_map",
        "photometric": "adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation apply_where "
        "blur_kernel_size gaussian_blur grayscale invert solarize",
        "randaugment": "MAX_OPS OPERATIONS RandAugment",
        "sweep": "TOGGLED Sweep",
        "views": "NUM_DRAWS Draw OneView TwoViews Views draw_table eval_transform normalise",
    },
)
