"""Random views of a batch of images, on the images' device, with parameters of its own for each image.

All randomness but pixel noise comes from a table of uniform draws that is indexed by image, so that a view
depends on (seed, epoch, image, view) alone: not on batch size, order, device, micro-batch or number of
processes. Each operation owns fixed columns of the table; changing one operation leaves what the others draw
untouched, and policies are compared on paired views.
"""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum, auto, unique

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import geometry as geo
from . import photometric as photo
from .policy import AugmentationPolicy, Normalisation
from .randaugment import MAX_OPS, RandAugment

__all__ = ["NUM_DRAWS", "Draw", "OneView", "TwoViews", "Views", "draw_table", "eval_transform", "normalise"]


@unique
class Draw(IntEnum):
    """Columns of the table of draws: appended to, never reordered, for recorded runs to stay repeatable."""

    CROP_RATIO = 0
    CROP_AREA = auto()
    CROP_X = auto()
    CROP_Y = auto()
    FLIP = auto()
    AFFINE = auto()
    ROTATION = auto()
    SHIFT_X = auto()
    SHIFT_Y = auto()
    ZOOM = auto()
    JITTER = auto()
    JITTER_ORDER = auto()
    BRIGHTNESS = auto()
    CONTRAST = auto()
    SATURATION = auto()
    HUE = auto()
    GRAY = auto()
    GAMMA = auto()
    GAMMA_EXPONENT = auto()
    BLUR = auto()
    BLUR_SIGMA = auto()
    NOISE = auto()
    SOLARIZE = auto()
    INVERT = auto()
    RANDAUGMENT = auto()  # and the following: operation and sign, MAX_OPS times


NUM_DRAWS = 40  # the columns above, 2 · MAX_OPS for RandAugment, the rest spare
assert Draw.RANDAUGMENT + 2 * MAX_OPS <= NUM_DRAWS

ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4] jitter's step -> its place


def draw_table(num_images: int, num_views: int, seed: int, epoch: int) -> Tensor:
    """Uniform draws for every view of an epoch.

    Args:
        num_images: images of the split; rows are indexed by image.
        num_views: views of each image.
        seed, epoch: the only things that the table depends on, both ≥ 0.

    Returns:
        float32 [num_images, num_views, NUM_DRAWS] in [0, 1), on the CPU.

    Raises:
        ValueError: if seed or epoch is negative.
    """
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed and epoch must be at least 0, got {seed} and {epoch}")
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> 1))
    return torch.rand(num_images, num_views, NUM_DRAWS, generator=generator)


class Views:
    """Random views of a batch of images under one policy.

    Geometry (affine, crop, flip, RandAugment's shifts) is composed into one map and resampled once,
    bicubically, black outside. Then, each with its probability: jitter (brightness, contrast, saturation, hue
    in random order), grayscale, gamma, blur, noise, solarize, invert, RandAugment's pixel operations. The
    policy's normalisation is not applied.

    Departures from torchvision's chain: one resampling instead of several; crops at sub-pixel positions; the
    affine map acts before the crop wherever the policy has both; no antialiasing, which would only act where
    a view shrinks its image. Images larger than the view are therefore reduced first, with antialiasing, and
    crops enlarge the result.

    Args:
        policy: what is drawn, how often and how strongly.
        size: side of the views in pixels.
        num_views: views of each image.

    Raises:
        ValueError: if size or num_views is below 1.
    """

    def __init__(self, policy: AugmentationPolicy, size: int, num_views: int) -> None:
        if size < 1 or num_views < 1:
            raise ValueError(f"size and num_views must be at least 1, got {size} and {num_views}")
        self.policy, self.size, self.num_views = policy, size, num_views
        self.operations = frozenset(policy.enabled_operations())
        self.crops = geo.CropSampler(
            (policy.crop_scale_min, policy.crop_scale_max), (policy.crop_ratio_min, policy.crop_ratio_max)
        )
        self.randaugment = RandAugment(policy.randaugment_ops, policy.randaugment_magnitude, size)

    def __call__(
        self, images: Tensor, draws: Tensor, noise_generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """The views.

        Args:
            images: uint8 [B, C, S, S], C 1 or 3.
            draws: [B, num_views, NUM_DRAWS] in [0, 1), the images' rows of `draw_table`, on any device.
            noise_generator: source of pixel noise, on the images' device; None takes torch's own.

        Returns:
            num_views tensors float32 [B, C, size, size] in [0, 1], on the images' device.

        Raises:
            ValueError: for images or draws of another dtype or shape.
        """
        _check(images, draws, self.num_views)
        draws = draws.to(images.device, non_blocking=True)
        with torch.no_grad(), _full_precision(images.device.type):
            sources = self._sources(images)
            views = range(self.num_views)
            return tuple(self._view(sources, draws[:, view], noise_generator) for view in views)

    def _sources(self, images: Tensor) -> Tensor:
        """Float images in [0, 1], no larger than the views."""
        sources = images.float().div_(255)
        if images.shape[-1] > self.size:
            side = (self.size, self.size)
            sources = F.interpolate(sources, size=side, mode="bicubic", antialias=True).clamp_(0, 1)
        return sources

    def _view(self, sources: Tensor, draws: Tensor, noise_generator: torch.Generator | None) -> Tensor:
        if self.operations & {"affine", "crop", "flip", "randaugment"} or sources.shape[-1] != self.size:
            uncovers = bool(self.operations & {"affine", "randaugment"})
            view = geo.resample(sources, self._maps(draws), self.size, uncovers=uncovers)
        else:
            view = sources.clone()
        view = self._colours(view, draws)
        view = self._sharpness(view, draws, noise_generator)
        view = self._polarity(view, draws)
        if "randaugment" in self.operations:
            view = self.randaugment.pixels(view, draws[:, Draw.RANDAUGMENT :])
        return view

    def _maps(self, draws: Tensor) -> Tensor:
        """View to image, [B, 3, 3]: affine first, then crop, flip and RandAugment's shifts."""
        policy = self.policy
        maps = geo.crop_map(*self.crops(draws[:, Draw.CROP_RATIO : Draw.CROP_Y + 1]))
        if "affine" in self.operations:
            drawn = draws[:, Draw.AFFINE] < policy.affine_prob
            affine = geo.affine_map(
                drawn * _uniform(draws[:, Draw.ROTATION], -policy.rotation_deg, policy.rotation_deg),
                drawn * _uniform(draws[:, Draw.SHIFT_X], -policy.shift, policy.shift),
                drawn * _uniform(draws[:, Draw.SHIFT_Y], -policy.shift, policy.shift),
                torch.where(drawn, _uniform(draws[:, Draw.ZOOM], policy.zoom_min, policy.zoom_max), 1.0),
            )
            maps = geo.compose(affine, maps)
        if "flip" in self.operations:
            maps = geo.compose(maps, geo.flip_map(draws[:, Draw.FLIP] < policy.flip_prob))
        if "randaugment" in self.operations:
            maps = geo.compose(maps, self.randaugment.maps(draws[:, Draw.RANDAUGMENT :]))
        return maps

    def _colours(self, view: Tensor, draws: Tensor) -> Tensor:
        """Jitter in random order, grayscale, gamma."""
        policy = self.policy
        if self.operations & {"brightness", "contrast", "saturation", "hue"}:
            view = self._jitter(view, draws)
        if policy.gray_prob > 0 and view.shape[1] == 3:
            view = photo.apply_where(draws[:, Draw.GRAY] < policy.gray_prob, photo.grayscale, view)
        if "gamma" in self.operations:
            exponent = (1 + policy.gamma) ** _uniform(draws[:, Draw.GAMMA_EXPONENT], -1, 1)
            drawn = draws[:, Draw.GAMMA] < policy.gamma_prob
            view = photo.apply_where(drawn, photo.adjust_gamma, view, exponent)
        return view

    def _jitter(self, view: Tensor, draws: Tensor) -> Tensor:
        """Brightness, contrast, saturation and hue in an order of each image's own, as ColorJitter does."""
        policy = self.policy
        steps = [
            (photo.adjust_brightness, policy.brightness, Draw.BRIGHTNESS),
            (photo.adjust_contrast, policy.contrast, Draw.CONTRAST),
            (photo.adjust_saturation, policy.saturation, Draw.SATURATION),
            (photo.adjust_hue, policy.hue, Draw.HUE),
        ]
        active = [i for i, step in enumerate(steps) if step[1] > 0 and (i < 2 or view.shape[1] == 3)]
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

    def _sharpness(self, view: Tensor, draws: Tensor, generator: torch.Generator | None) -> Tensor:
        """Blur, then noise."""
        policy = self.policy
        if "blur" in self.operations:
            sigma = _uniform(draws[:, Draw.BLUR_SIGMA], policy.blur_sigma_min, policy.blur_sigma_max)
            width = photo.blur_kernel_size(self.size)
            drawn = draws[:, Draw.BLUR] < policy.blur_prob
            view = photo.apply_where(drawn, lambda x, s: photo.gaussian_blur(x, s, width), view, sigma)
        if "noise" in self.operations:

            def add_noise(x: Tensor) -> Tensor:
                noise = torch.randn(x.shape, device=x.device, generator=generator)
                return noise.mul_(policy.noise_std).add_(x).clamp_(0, 1)

            view = photo.apply_where(draws[:, Draw.NOISE] < policy.noise_prob, add_noise, view)
        return view

    def _polarity(self, view: Tensor, draws: Tensor) -> Tensor:
        """Solarize, then invert."""
        policy = self.policy
        if "solarize" in self.operations:
            threshold = torch.full_like(draws[:, Draw.SOLARIZE], policy.solarize_threshold)
            drawn = draws[:, Draw.SOLARIZE] < policy.solarize_prob
            view = photo.apply_where(drawn, photo.solarize, view, threshold)
        if "invert" in self.operations:
            view = photo.apply_where(draws[:, Draw.INVERT] < policy.invert_prob, photo.invert, view)
        return view


class OneView(Views):
    """One view of each image: `OneView(policy, size)(images, draws [B, 1, NUM_DRAWS]) -> (x,)`."""

    def __init__(self, policy: AugmentationPolicy, size: int) -> None:
        super().__init__(policy, size, num_views=1)


class TwoViews(Views):
    """Two views of each image: `TwoViews(policy, size)(images, draws [B, 2, NUM_DRAWS]) -> (x_a, x_b)`."""

    def __init__(self, policy: AugmentationPolicy, size: int) -> None:
        super().__init__(policy, size, num_views=2)


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    """Autocast switched off: in half precision a blur would round greys to fewer than the 256 stored."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def _uniform(draw: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draw


def _check(images: Tensor, draws: Tensor, num_views: int) -> None:
    shape = tuple(images.shape)
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    if images.ndim != 4 or shape[1] not in (1, 3) or shape[2] != shape[3]:
        raise ValueError(f"images must be [B, 1 or 3, S, S], got {list(shape)}")
    if tuple(draws.shape) != (shape[0], num_views, NUM_DRAWS):
        raise ValueError(f"draws must be [{shape[0]}, {num_views}, {NUM_DRAWS}], got {list(draws.shape)}")


def normalise(x: Tensor, normalisation: Normalisation) -> Tensor:
    """(x - mean) / std per channel, for images [B, C, H, W] in [0, 1]."""
    values = normalisation.for_channels(x.shape[1])
    mean, std = (x.new_tensor(numbers).view(1, -1, 1, 1) for numbers in (values.mean, values.std))
    return (x - mean) / std


def eval_transform(images: Tensor, normalisation: Normalisation) -> Tensor:
    """The one deterministic transform of probes and tests: uint8 [B, C, S, S] to normalised float32.

    Raises:
        ValueError: if the images are not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    return normalise(images.float().div_(255), normalisation)
