"""Pixel-wise operations with one parameter per image, equal to torchvision's on float images in [0, 1].

Every function takes images [B, C, H, W] and parameters [B] and returns images of the same shape; none draws
at random.
Source: torchvision.transforms.v2.functional, which takes one parameter for the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    *("adjust_brightness", "adjust_contrast", "adjust_gamma", "adjust_hue", "adjust_saturation", "grayscale"),
    *("add_noise", "apply_where", "blur_kernel_size", "gaussian_blur", "invert", "motion_blur", "solarize"),
]


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def apply_where(drawn: Tensor, operation: Callable[..., Tensor], images: Tensor, *parameters: Tensor) -> Tensor:
    """The operation on the images for which the bool [B] is true; may write into `images`.

    On a CPU only those are computed; elsewhere all, which costs less than the wait for their number.
    """
    if images.device.type != "cpu":
        return torch.where(_per_image(drawn), operation(images, *parameters), images)
    index = drawn.nonzero().flatten()
    if len(index) > 0:
        images[index] = operation(images[index], *(values[index] for values in parameters))
    return images


def _luma(images: Tensor) -> Tensor:
    """[B, 1, H, W], weighted as torchvision does; one channel is its own."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def grayscale(images: Tensor) -> Tensor:
    """Luma in every channel; one channel stays as it is."""
    return images if images.shape[1] == 1 else _luma(images).repeat(1, images.shape[1], 1, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Values times the factor."""
    return images.mul(_per_image(factor)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards the image's mean grey."""
    mean = _luma(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _per_image(factor)).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Away from (factor > 1) or towards the grey image; one channel stays as it is."""
    if images.shape[1] == 1:
        return images
    return torch.lerp(_luma(images), images, _per_image(factor)).clamp_(0, 1)


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Hue turned by the given part of the colour circle, in [-.5, .5]; one channel stays as it is."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    low, value = torch.aminmax(images, dim=1)
    chroma = value - low
    divisor = torch.where(chroma == 0, 1, chroma)
    hue = torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    hue = torch.where(value == red, (green - blue) / divisor, hue)  # in sixths of the circle
    hue = hue + 6 * turns.view(-1, 1, 1)
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    sector = (offsets + hue[:, None]).remainder(6)
    return value[:, None] - chroma[:, None] * torch.minimum(sector, 4 - sector).clamp_(0, 1)


def adjust_gamma(images: Tensor, exponent: Tensor) -> Tensor:
    """Values to the power of the exponent."""
    return images.log2().mul_(_per_image(exponent)).exp2_()  # a third of the time of pow


def add_noise(images: Tensor, std: float, generator: torch.Generator | None) -> Tensor:
    """Gaussian noise of its own for every pixel, from the generator or torch's own."""
    noise = torch.randn(images.shape, device=images.device, generator=generator)
    return noise.mul_(std).add_(images).clamp_(0, 1)


def invert(images: Tensor) -> Tensor:
    """Black and white exchanged."""
    return 1 - images


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Values from the threshold up inverted."""
    return torch.where(images >= _per_image(threshold), 1 - images, images)


def blur_kernel_size(size: int) -> int:
    """Largest odd width of at most a tenth of the side (SimCLR's rule), at least 3; a single pixel stays as it is."""
    return max(3, (size // 10 - 1) // 2 * 2 + 1) if size > 1 else 1


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Gaussian of sigma [B] in pixels, cut at the kernel's width, reflecting at the edges."""
    reach = kernel_size // 2
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernels = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)  # [B, k]
    return _filtered(images, kernels[:, None, :], kernels[:, :, None])


def motion_blur(images: Tensor, length: Tensor, angle_deg: Tensor, kernel_size: int) -> Tensor:
    """The mean along a line, one pixel wide, reflecting at the edges.

    Args:
        length: [B] in pixels, from 1. angle_deg: [B] of the line. kernel_size: odd, above length.
    """
    reach, angle = kernel_size // 2, torch.deg2rad(angle_deg).view(-1, 1, 1)
    x = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    along = x * torch.cos(angle) + x[:, None] * torch.sin(angle)
    across = x[:, None] * torch.cos(angle) - x * torch.sin(angle)
    kernels = (1 - across.abs()).clamp_(min=0) * ((length.view(-1, 1, 1) + 1) / 2 - along.abs()).clamp_(0, 1)
    return _filtered(images, kernels / kernels.sum(dim=(1, 2), keepdim=True))


def _filtered(images: Tensor, *kernels: Tensor) -> Tensor:
    """Images [B, C, H, W] through kernels [B, k or 1, k or 1], continued by their mirror image.

    The images of the batch become groups of one convolution, so that each has its own kernel.
    """
    (batch, channels), reach = images.shape[:2], max(kernels[0].shape[1:]) // 2
    filtered = F.pad(images, (reach, reach, reach, reach), mode="reflect").flatten(0, 1)[None]
    for kernel in kernels:
        filtered = F.conv2d(filtered, kernel.repeat_interleave(channels, dim=0)[:, None], groups=batch * channels)
    return filtered.view_as(images).clamp_(0, 1)
