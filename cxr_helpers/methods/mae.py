"""Masked autoencoding: a ViT reads a few patches of an image, and a light decoder says what the others hold.

A CNN cannot leave patches out, but it can see them filled: `inpainting` with its option `patch`. ResNet stands there
for the DenseNet-121 of the studies of films: the question is CNN or ViT, and this package's other rows are ResNet's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..augment import AugmentationPolicy, Views, count_patches, draw_patches
from ..fields import require
from ..models import SHAPES, Backbone, ViT, positions
from .base import Batch, PretextTask
from .options import MAEOptions

__all__ = ["MAE"]

FLAT = 0.01  # of the range of greys: a patch that spreads less is not blown up to unit deviation


class MAE(PretextTask):
    """What hidden patches hold (arXiv 2111.06377): squared error on them alone.

    Departures: as many patches are hidden in every image, but they can be drawn to the middle; a patch's deviation
    under `norm_pix` has a floor of `FLAT`, as films have black patches.
    """

    Options = MAEOptions
    backbone: ViT

    def make_head(self) -> nn.Module:
        name = self.backbone.name
        known = f"one of {', '.join(SHAPES)} for mae (a CNN: inpainting with --options patch 16)"
        require(isinstance(self.backbone, ViT), "backbone", known, name)
        return _Decoder(self.backbone, self.options.decoder_dim, self.options.decoder_depth)

    def views(self, policy: AugmentationPolicy, size: int) -> Views:
        self.num_draws = count_patches(size, self.backbone.patch, self.options.mask_ratio)
        return super().views(policy, size)

    def hide(self, draws: Tensor, size: int) -> Tensor:
        """What is hidden of images of that side, bool [B, 1, size, size], from draws [B, num_draws]."""
        return draw_patches(draws, size, self.options.mask_ratio, self.options.centring)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`error` per image in the target's unit; `mse` of greys in [0, 1], each patch's own spread put back."""
        assert batch.draws is not None
        x = batch.views[0]
        hidden = self.hide(batch.draws, x.shape[-1])
        features, painted = self.paint(x, hidden)
        off = (painted - x) * hidden
        parts = hidden.sum((1, 2, 3)) * x.shape[1]
        error = (off / self._scale(x)[1]).square().sum((1, 2, 3)) / parts
        std = x.new_tensor(self.backbone.normalisation.std).mean()
        return {"features": features, "error": error, "mse": (off.detach() * std).square().sum((1, 2, 3)) / parts}

    def paint(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, D] of images without what is hidden [B, 1, S, S], and the decoder's images, normalised."""
        patch = self.backbone.patch
        order = hidden[:, 0, ::patch, ::patch].flatten(1).long().argsort(dim=1, stable=True)  # the seen first
        seen = order.shape[1] - round(self.options.mask_ratio * order.shape[1])
        tokens = self.backbone.read(_taken(self.backbone.embed(x), order[:, :seen]))
        mean, spread = self._scale(x)
        return tokens.mean(1), self.head(tokens, order).float() * spread + mean

    def _scale(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Mean and deviation of each patch at each of its pixels, of all channels together; else 0 and 1."""
        if not self.options.norm_pix:
            return 0.0, 1.0
        patch, std = self.backbone.patch, x.new_tensor(self.backbone.normalisation.std).mean()
        cells = x.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # [B, C, h, p, w, p]
        var, mean = torch.var_mean(cells, dim=(1, 3, 5), keepdim=True)
        spread = (var + (FLAT / std) ** 2).sqrt()
        mean, spread = (v.expand_as(cells).flatten(4, 5).flatten(2, 3) for v in (mean, spread))
        return mean, spread

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": outputs["error"].mean(), "mse": outputs["mse"].mean()}

    def val_figures(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"mse": outputs["mse"]}


class _Decoder(nn.Module):
    """From the tokens of seen patches to the image, a learnt token in the place of each hidden one."""

    def __init__(self, backbone: Backbone, width: int, depth: int) -> None:
        super().__init__()
        assert isinstance(backbone, ViT)
        self.patch = backbone.patch
        self.embed = nn.Linear(backbone.feature_dim, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, width // 32, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, self.patch**2 * backbone.in_channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Images [B, C, S, S] from what was read [B, n, D] of the first n patches of an order [B, N] of places."""
        seen, (batch, count) = self.embed(tokens), order.shape
        missing = self.mask_token.to(seen.dtype).expand(batch, count - seen.shape[1], -1)
        x = _taken(torch.cat([seen, missing], dim=1), order.argsort(dim=1))
        side = round(count**0.5)
        x = self.last(self.norm(self.blocks(x + positions(side, x.shape[2]).to(x))))
        return F.pixel_shuffle(x.transpose(1, 2).unflatten(2, (side, side)), self.patch)


def _taken(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens [B, N, D] at places [B, n] of each image, [B, n, D]."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))
