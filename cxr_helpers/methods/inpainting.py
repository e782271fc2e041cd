"""What a hidden part of an image holds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import AugmentationPolicy, Views, count_patches, draw_patches, draw_rectangles
from ..models import Backbone
from .base import Batch, PretextTask
from .options import InpaintingOptions

__all__ = ["Inpainting"]


class Inpainting(PretextTask):
    """What a hidden rectangle holds (context encoders, arXiv 1604.07379): L1 inside it alone, no adversary.

    The encoder sees the rectangle filled; where it lies only the decoder is told. With `patch` above 0 many square
    patches are hidden instead: what masked autoencoding asks of a ViT, asked of a CNN.
    """

    Options = InpaintingOptions
    num_draws = 4

    def make_head(self) -> nn.Module:
        return _Decoder(self.backbone, skips=self.options.skips)

    def views(self, policy: AugmentationPolicy, size: int) -> Views:
        if self.options.patch:
            self.num_draws = count_patches(size, self.options.patch, self.options.mask_ratio)
        return super().views(policy, size)

    def hide(self, draws: Tensor, size: int) -> Tensor:
        """What is hidden of images of that side, bool [B, 1, size, size], from draws [B, num_draws]."""
        o = self.options
        if o.patch:
            return draw_patches(draws, size, o.mask_ratio, o.centring)
        return draw_rectangles(draws, size, o.area_min, o.area_max)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.draws is not None
        x = batch.views[0]
        hidden = self.hide(batch.draws, x.shape[-1])
        features, painted = self.paint(x, hidden)
        parts = hidden.sum((1, 2, 3)) * x.shape[1]
        error = ((painted.float() - x).abs() * hidden).sum((1, 2, 3)) / parts
        std = x.new_tensor(self.backbone.normalisation.std).mean()
        return {"features": features, "error": error, "l1": error.detach() * std}

    def paint(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, D] of images without what is hidden [B, 1, S, S], and the decoder's images, normalised."""
        seen = x * ~hidden
        if self.options.fill == "mean":
            mean = seen.sum((2, 3), keepdim=True) / (~hidden).sum((2, 3), keepdim=True).clamp_min(1)
            seen = torch.where(hidden, mean, x)
        maps = self.backbone.stages(seen)
        return [*maps.values()][-1].mean((2, 3)), self.head(maps, hidden)

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": outputs["error"].mean(), "l1": outputs["l1"].mean()}

    def val_figures(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"l1": outputs["l1"]}


class _Decoder(nn.Module):
    """From the deepest map up to the image, twice as large at each level, the mask beside the maps.

    Args:
        skips: whether each level also sees the encoder's map of its size (U-Net, arXiv 1505.04597).
    """

    def __init__(self, backbone: Backbone, *, skips: bool) -> None:
        super().__init__()
        self.skips, side = skips, 64
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            maps = [*backbone.eval().stages(torch.zeros(1, backbone.in_channels, side, side)).values()]
        backbone.train()
        if not all(a.shape[-1] > b.shape[-1] for a, b in pairwise(maps)):
            raise ValueError(f"inpainting must have a backbone whose maps shrink, got {backbone.name}")
        widths = [m.shape[1] for m in reversed(maps[:-1])]  # of the levels up to the first map's size
        beside = [w if skips else 0 for w in widths]
        while maps[0].shape[-1] << (len(widths) - len(maps) + 1) < side:
            widths, beside = [*widths, widths[-1] // 2], [*beside, 0]
        before = [maps[-1].shape[1], *widths]
        self.levels = nn.ModuleList(_level(b + 1 + s, w) for b, s, w in zip(before, beside, widths, strict=False))
        self.last = nn.Conv2d(widths[-1], backbone.in_channels, 3, padding=1)

    def forward(self, maps: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
        *others, x = maps.values()
        size, hidden = hidden.shape[-1], hidden.to(x.dtype)
        for i, level in enumerate(self.levels):
            beside = others[-1 - i] if i < len(others) else None
            side = min(size, 2 * x.shape[-1]) if beside is None else beside.shape[-1]
            mask = F.adaptive_avg_pool2d(hidden, side)
            skipped = [beside] if self.skips and beside is not None else []
            x = level(torch.cat([F.interpolate(x, size=(side, side)), mask, *skipped], dim=1))
        return self.last(x)


def _level(fan_in: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(fan_in, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
