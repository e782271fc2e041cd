"""Batched random views with parameters of their own for each image, and the one deterministic transform."""

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
from .views import NUM_DRAWS, Draw, OneView, TwoViews, Views, draw_table, eval_transform, normalise

__all__ = [
    "MAX_OPS",
    "NUM_DRAWS",
    "OPERATIONS",
    "CropSampler",
    "Draw",
    "OneView",
    "RandAugment",
    "TwoViews",
    "Views",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_gamma",
    "adjust_hue",
    "adjust_saturation",
    "affine_map",
    "apply_where",
    "blur_kernel_size",
    "compose",
    "crop_map",
    "draw_table",
    "eval_transform",
    "flip_map",
    "gaussian_blur",
    "grayscale",
    "invert",
    "normalise",
    "resample",
    "shear_map",
    "solarize",
]
