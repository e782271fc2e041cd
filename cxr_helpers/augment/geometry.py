"""Affine maps between views and images, and the one resampling that applies them.

A map is a float tensor [B, 3, 3] that takes a point of the view to the point of the image shown there, both
in the coordinates of `torch.nn.functional.grid_sample` with align_corners=False: -1 and 1 are the outer edges
of the square, x grows to the right, y downwards.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CropSampler", "affine_map", "compose", "crop_map", "flip_map", "move_boxes", "resample", "shear_map"]


class CropSampler:
    """Draws the crops of torchvision's RandomResizedCrop from a square image without its rejection loop.

    A log-ratio L is kept there with a density proportional to the length of the areas that fit a square,
    min(area_max, exp(-|L|)) - area_min, and the area is uniform among them; both are drawn here from their inverse
    distribution functions. Departures: no rounding to pixels, no central crop after ten misses.

    Args:
        scale: smallest and largest area as fractions of the image.
        ratio: smallest and largest width / height.
        centring: part of the way by which a crop is moved to the middle.
    """

    NUM_QUANTILES = 4097

    def __init__(self, scale: tuple[float, float], ratio: tuple[float, float], centring: float = 0.0) -> None:
        self.scale, self.reach = scale, 1 - centring
        widest = -math.log(scale[0])  # no area fits beyond exp(-|L|) = scale[0]
        low = max(math.log(ratio[0]), -widest)
        high = max(low, min(math.log(ratio[1]), widest))
        log_ratio = torch.linspace(low, high, self.NUM_QUANTILES, dtype=torch.float64)
        fitting = torch.exp(-log_ratio.abs()).clamp(max=scale[1]) - scale[0]
        density = fitting.clamp(min=0) + 1e-9  # of a fixed area every ratio that fits is alike
        below = F.pad(((density[1:] + density[:-1]) / 2).cumsum(0), (1, 0))
        places = torch.linspace(0, 1, self.NUM_QUANTILES, dtype=torch.float64) * below[-1]
        self.log_ratio_quantiles = torch.from_numpy(np.interp(places, below, log_ratio)).float()

    def __call__(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Crops from draws [B, 4] in [0, 1) of ratio, area, horizontal and vertical position.

        Returns:
            centre_x, centre_y in [-1, 1] and width, height as fractions of the side, each [B].
        """
        self.log_ratio_quantiles = self.log_ratio_quantiles.to(draws.device)
        place = draws[:, 0] * (self.NUM_QUANTILES - 1)
        index = place.long().clamp(max=self.NUM_QUANTILES - 2)
        left, right = self.log_ratio_quantiles[index], self.log_ratio_quantiles[index + 1]
        log_ratio = torch.lerp(left, right, place - index)
        largest = torch.exp(-log_ratio.abs()).clamp(self.scale[0], self.scale[1])
        area = torch.lerp(torch.full_like(largest, self.scale[0]), largest, draws[:, 1])
        width = (area * log_ratio.exp()).sqrt().clamp(max=1)
        height = (area / log_ratio.exp()).sqrt().clamp(max=1)
        x, y = (2 * draws[:, 2] - 1) * (1 - width), (2 * draws[:, 3] - 1) * (1 - height)
        return x * self.reach, y * self.reach, width, height


def _maps(rows: tuple[tuple[Tensor | float, ...], tuple[Tensor | float, ...]], like: Tensor) -> Tensor:
    """[B, 3, 3] from the two upper rows, numbers repeated for every image."""
    entries = [x if isinstance(x, Tensor) else torch.full_like(like, x) for row in rows for x in row]
    last = [torch.zeros_like(like), torch.zeros_like(like), torch.ones_like(like)]
    return torch.stack(entries + last, dim=1).view(-1, 3, 3)


def compose(*maps: Tensor) -> Tensor:
    """The product of maps [B, 3, 3], the operation applied to the image first on the left."""
    product = maps[0]
    for following in maps[1:]:  # a matrix product may be rounded to ten bits (TF32), a tenth of a pixel
        product = (product[:, :, :, None] * following[:, None]).sum(dim=2)
    return product


def affine_map(angle_deg: Tensor, shift_x: Tensor, shift_y: Tensor, zoom: Tensor) -> Tensor:
    """Rotation and zoom about the centre, then a shift.

    Args:
        angle_deg: [B], counter-clockwise as in torchvision's `rotate` (its `affine` counts clockwise).
        shift_x, shift_y: [B], fractions of the side, to the right and downwards.
        zoom: [B], above 1 enlarges.
    """
    angle = torch.deg2rad(angle_deg)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    x, y = -2 * shift_x, -2 * shift_y  # the view's point before the shift
    return _maps(((cos, -sin, cos * x - sin * y), (sin, cos, sin * x + cos * y)), cos)


def crop_map(centre_x: Tensor, centre_y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """The view shows the window of that centre (in [-1, 1]) and size (fractions of the side), each [B]."""
    return _maps(((width, 0.0, centre_x), (0.0, height, centre_y)), width)


def flip_map(flipped: Tensor, upside_down: Tensor | None = None) -> Tensor:
    """Left and right exchanged where the bool [B] says so, above and below where the other does."""
    x = 1 - 2 * flipped.float()
    y = torch.ones_like(x) if upside_down is None else 1 - 2 * upside_down.float()
    return _maps(((x, 0.0, 0.0), (0.0, y, 0.0)), x)


def shear_map(along_x: Tensor, along_y: Tensor) -> Tensor:
    """RandAugment's shear about the top left corner, x + along_x · y and y + along_y · x, each [B]."""
    return _maps(((1.0, along_x, along_x), (along_y, 1.0, along_y)), along_x)


def move_boxes(boxes: Tensor, map_: Tensor, min_visible: float) -> tuple[Tensor, Tensor]:
    """Boxes of an image as they lie in its view: the upright box around their four moved corners, cut at the edges.

    Args:
        boxes: [N, 4] left, top, right, bottom as fractions of the side. map_: [3, 3], view to image.
        min_visible: a box of which a smaller part of the area lies inside the view is left out.
    Returns:
        boxes of the view [M, 4], and which of the N they are, bool [N].
    """
    corners = 2 * boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].view(-1, 4, 2) - 1
    moved = (F.pad(corners, (0, 1), value=1.0) @ torch.linalg.inv(map_).T)[..., :2] / 2 + 0.5
    around = torch.cat([moved.amin(dim=1), moved.amax(dim=1)], dim=1)
    inside = around.clamp(0, 1)
    whole, seen = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (around, inside))
    kept = seen > min_visible * whole
    return inside[kept], kept


def resample(images: Tensor, maps: Tensor, size: int, *, uncovers: bool = True) -> Tensor:
    """Views of the images through the maps: bicubic, black outside, clamped to the range.

    The image is continued by its edge pixels and faded to black within one pixel outside: continued by black, every
    crop that touches the edge would get a dark rim and a bright line beside it.

    Args:
        images: float [B, C, S, S] in [0, 1]. maps: [B, 3, 3]. size: side of the views in pixels.
        uncovers: whether a map may show what is outside of the image; False saves the fading.
    """
    centres = (2 * torch.arange(size, device=images.device, dtype=images.dtype) + 1) / size - 1
    along_x = maps[:, :2, 0, None, None] * centres  # [B, 2, 1, size]
    along_y = maps[:, :2, 1, None, None] * centres[:, None] + maps[:, :2, 2, None, None]  # [B, 2, size, 1]
    points = along_x + along_y  # [B, 2, size, size]; affine_grid takes longer than the resampling itself
    grid = points.permute(0, 2, 3, 1)
    views = F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)
    views.clamp_(0, 1)
    if uncovers:
        outside = torch.maximum(points[:, :1].abs(), points[:, 1:].abs()).sub_(1)
        views.mul_(outside.mul_(-images.shape[-1] / 2).add_(1).clamp_(0, 1))
    return views
