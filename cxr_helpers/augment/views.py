"""Random views of a batch of images, on the images' device, with parameters of its own for each image.

All randomness but pixel noise comes from a table of uniform draws, a row for each image: a view depends on (seed,
epoch, image, view) alone. Each operation owns columns of the table, so that policies are compared on paired views.
"""

from __future__ import annotations

import itertools
import math
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import equalize

from ..fields import require
from . import geometry as geo
from . import photometric as photo
from .policy import AugmentationPolicy, Normalisation
from .randaugment import RandAugment

__all__ = ["NUM_DRAWS", "Draw", "OneView", "TwoViews", "Views", "draw_table", "eval_transform", "normalise"]


class Draw(IntEnum):
    """Columns of the table of draws: appended to, never reordered, for recorded runs to stay repeatable."""

    CROP_RATIO, CROP_AREA, CROP_X, CROP_Y = range(4)
    FLIP = 4
    AFFINE, ROTATION, SHIFT_X, SHIFT_Y, ZOOM = range(5, 10)
    JITTER, JITTER_ORDER, BRIGHTNESS, CONTRAST, SATURATION, HUE = range(10, 16)
    GRAY = 16
    GAMMA, GAMMA_EXPONENT = range(17, 19)
    BLUR, BLUR_SIGMA = range(19, 21)
    NOISE, SOLARIZE, INVERT = range(21, 24)
    RANDAUGMENT = 24  # operation and sign, MAX_OPS times
    VERTICAL_FLIP, EQUALIZE, MOTION, MOTION_PX, MOTION_ANGLE = range(32, 37)


NUM_DRAWS = 40  # more than are used: another number would change what recorded runs drew
ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4] jitter's step -> its place


def draw_table(num_images: int, num_views: int, seed: int, epoch: int) -> Tensor:
    """Uniform draws for every view of an epoch, which depend on seed and epoch alone.

    Returns:
        float32 [num_images, num_views, NUM_DRAWS] in [0, 1), on the CPU; rows are indexed by image.
    """
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> 1))
    return torch.rand(num_images, num_views, NUM_DRAWS, generator=generator)


class Views:
    """Random views of a batch of images under one policy, before its normalisation.

    Geometry (affine, crop, flip, RandAugment's shifts) is composed into one map and resampled once, bicubically, black
    outside; torchvision resamples several times, crops at whole pixels and antialiases. Images larger than the view are
    reduced first. Then act, each with its probability, jitter in random order and what `_steps` lists.

    Args:
        size: side of the views in pixels.
        num_views: views of each image.
    """

    def __init__(self, policy: AugmentationPolicy, size: int, num_views: int = 2) -> None:
        self.policy, self.size, self.num_views = policy, size, num_views
        self.often = {row.operation: row.probability for row in policy.describe()}  # of the enabled operations
        scale = policy.crop_scale_min, policy.crop_scale_max
        self.crops = geo.CropSampler(scale, (policy.crop_ratio_min, policy.crop_ratio_max), policy.crop_centring)
        self.randaugment = RandAugment(policy.randaugment_ops, policy.randaugment_magnitude, size)

    def __call__(
        self, images: Tensor, draws: Tensor, noise_generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """`num_views` tensors float32 [B, C, size, size] in [0, 1], on the images' device.

        Args:
            images: uint8 [B, C, S, S], C 1 or 3.
            draws: [B, num_views, NUM_DRAWS] in [0, 1), the images' rows of `draw_table`, on any device.
            noise_generator: source of pixel noise, on the images' device; None takes torch's own.
        """
        require(images.dtype == torch.uint8, "images", "uint8", images.dtype)
        square = images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3]
        require(square, "images", "[B, 1 or 3, S, S]", [*images.shape])
        expected = [len(images), self.num_views, NUM_DRAWS]
        require([*draws.shape] == expected, "draws", f"{expected}", [*draws.shape])
        draws = draws.to(images.device, non_blocking=True)
        # in half precision a blur would round greys to fewer than the 256 stored
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            sources = images.float().div_(255)
            if images.shape[-1] > self.size:
                side = (self.size, self.size)
                sources = F.interpolate(sources, size=side, mode="bicubic", antialias=True).clamp_(0, 1)
            views = range(self.num_views)
            return tuple(self._view(sources, draws[:, view], noise_generator) for view in views)

    def _view(self, sources: Tensor, draws: Tensor, noise_generator: torch.Generator | None) -> Tensor:
        moves = self.often.keys() & {"affine", "crop", "flip", "vertical flip", "randaugment"}
        if moves or sources.shape[-1] != self.size:
            uncovers = bool(moves & {"affine", "randaugment"})
            view = geo.resample(sources, self.maps(draws), self.size, uncovers=uncovers)
        else:
            view = sources.clone()
        if "equalize" in self.often:
            view = photo.apply_where(draws[:, Draw.EQUALIZE] < self.often["equalize"], equalize, view)
        if self.often.keys() & {"brightness", "contrast", "saturation", "hue"}:
            view = self._jitter(view, draws)
        for name, column, operation, *parameters in self._steps(draws, noise_generator):
            if name in self.often:
                view = photo.apply_where(draws[:, column] < self.often[name], operation, view, *parameters)
        if "randaugment" in self.often:
            view = self.randaugment.pixels(view, draws[:, Draw.RANDAUGMENT :])
        return view

    def maps(self, draws: Tensor) -> Tensor:
        """View to image, [B, 3, 3], of draws [B, NUM_DRAWS]: affine first, then crop, flips, RandAugment's shifts."""
        policy = self.policy
        maps = geo.crop_map(*self.crops(draws[:, Draw.CROP_RATIO : Draw.CROP_Y + 1]))
        if "affine" in self.often:
            drawn = draws[:, Draw.AFFINE] < policy.affine_prob
            affine = geo.affine_map(
                drawn * _uniform(draws[:, Draw.ROTATION], -policy.rotation_deg, policy.rotation_deg),
                drawn * _uniform(draws[:, Draw.SHIFT_X], -policy.shift, policy.shift),
                drawn * _uniform(draws[:, Draw.SHIFT_Y], -policy.shift, policy.shift),
                torch.where(drawn, _uniform(draws[:, Draw.ZOOM], policy.zoom_min, policy.zoom_max), 1.0),
            )
            maps = geo.compose(affine, maps)
        if "flip" in self.often:
            maps = geo.compose(maps, geo.flip_map(draws[:, Draw.FLIP] < policy.flip_prob))
        if "vertical flip" in self.often:
            flipped = draws[:, Draw.VERTICAL_FLIP] < policy.vertical_flip_prob
            maps = geo.compose(maps, geo.flip_map(torch.zeros_like(flipped), flipped))
        if "randaugment" in self.often:
            maps = geo.compose(maps, self.randaugment.maps(draws[:, Draw.RANDAUGMENT :]))
        return maps

    def _jitter(self, view: Tensor, draws: Tensor) -> Tensor:
        """Brightness, contrast, saturation and hue in an order of each image's own, as ColorJitter does."""
        policy = self.policy
        steps = [
            (photo.adjust_brightness, policy.brightness, Draw.BRIGHTNESS),
            (photo.adjust_contrast, policy.contrast, Draw.CONTRAST),
            (photo.adjust_saturation, policy.saturation, Draw.SATURATION),
            (photo.adjust_hue, policy.hue, Draw.HUE),
        ][: 4 if view.shape[1] == 3 else 2]  # one channel has no colour
        active = [i for i, (_, strength, _) in enumerate(steps) if strength > 0]
        drawn = draws[:, Draw.JITTER] < policy.jitter_prob
        orders = ORDERS.to(draws.device)[(draws[:, Draw.JITTER_ORDER] * len(ORDERS)).long()]  # [B, 4]
        ranks = orders[:, active].argsort(dim=1).argsort(dim=1)  # [B, active] places without gaps
        for place in range(len(active)):
            for column, i in enumerate(active):
                operation, strength, draw = steps[i]
                low = -strength if draw is Draw.HUE else max(0.0, 1 - strength)
                high = strength if draw is Draw.HUE else 1 + strength
                chosen = drawn & (ranks[:, column] == place)
                view = photo.apply_where(chosen, operation, view, _uniform(draws[:, draw], low, high))
        return view

    def _steps(self, draws: Tensor, noise_generator: torch.Generator | None) -> list[tuple[Any, ...]]:
        """What acts on values, in this order: its name, the column that says whether, the function, its parameters."""
        policy = self.policy
        exponent = (1 + policy.gamma) ** _uniform(draws[:, Draw.GAMMA_EXPONENT], -1, 1)
        sigma = _uniform(draws[:, Draw.BLUR_SIGMA], policy.blur_sigma_min, policy.blur_sigma_max)
        blur = partial(photo.gaussian_blur, kernel_size=photo.blur_kernel_size(self.size))
        length = _uniform(draws[:, Draw.MOTION_PX], 1.0, policy.motion_px)
        reach = min(math.ceil(policy.motion_px / 2), self.size - 1)  # what reflecting at the edges allows
        motion = partial(photo.motion_blur, kernel_size=2 * reach + 1)
        noise = partial(photo.add_noise, std=policy.noise_std, generator=noise_generator)
        return [
            ("grayscale", Draw.GRAY, photo.grayscale),
            ("gamma", Draw.GAMMA, photo.adjust_gamma, exponent),
            ("blur", Draw.BLUR, blur, sigma),
            ("motion", Draw.MOTION, motion, length, 180 * draws[:, Draw.MOTION_ANGLE]),
            ("noise", Draw.NOISE, noise),
            ("solarize", Draw.SOLARIZE, photo.solarize, torch.full_like(sigma, policy.solarize_threshold)),
            ("invert", Draw.INVERT, photo.invert),
        ]


TwoViews = Views


class OneView(Views):
    """One view of each image: `OneView(policy, size)(images, draws [B, 1, NUM_DRAWS]) -> (x,)`."""

    def __init__(self, policy: AugmentationPolicy, size: int) -> None:
        super().__init__(policy, size, num_views=1)


def _uniform(draw: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draw


def normalise(x: Tensor, normalisation: Normalisation) -> Tensor:
    """(x - mean) / std per channel, for images [B, C, H, W] in [0, 1]."""
    values = normalisation.for_channels(x.shape[1])
    mean, std = (x.new_tensor(numbers).view(1, -1, 1, 1) for numbers in (values.mean, values.std))
    return (x - mean) / std


def eval_transform(images: Tensor, normalisation: Normalisation) -> Tensor:
    """The one deterministic transform of probes and tests: uint8 [B, C, S, S] to normalised float32."""
    require(images.dtype == torch.uint8, "images", "uint8", images.dtype)
    return normalise(images.float().div_(255), normalisation)
