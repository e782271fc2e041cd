"""Vision transformers on timm's blocks: fixed positions, no class token, so that features are the mean over patches."""

from __future__ import annotations

import math
from typing import Any

from timm.layers import DropPath, resample_abs_pos_embed, resample_patch_embed
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..augment import Normalisation
from ..fields import require
from .backbone import Backbone

__all__ = ["SHAPES", "ViT", "as_vit", "patch_for", "positions"]

SHAPES = {"vit_tiny6": (192, 6, 3), "vit_tiny": (192, 12, 3), "vit_small": (384, 12, 6)}  # width, blocks, heads
STATISTICS = Normalisation((0.5,), (0.5,))  # under which timm's weights were trained
PATCHES = "patch_embed.proj.weight"  # every ViT has it once


def patch_for(size: int) -> int:
    """The side of a patch in px: 4 below 48 px, 8 below 128, else 16; a ValueError where it does not divide them."""
    patch = 4 if size < 48 else 8 if size < 128 else 16
    require(size % patch == 0, "size", f"a multiple of the ViT's patch, {patch} px", size)
    return patch


def positions(grid: int, width: int) -> Tensor:
    """Sines, then cosines, of row and column of each place (MAE, arXiv 2111.06377), [1, grid * grid, width]."""
    return build_sincos2d_pos_embed([grid, grid], width)[None]


class ViT(Backbone):
    """A timm ViT without class token and classifier, normed before the mean; other sizes resize its positions.

    Args:
        name: of `SHAPES`. channels: 1 or 3. stem: `patch4`, `patch8` or `patch16`, by the side of a patch in px.
        normalisation: of its input. grid: patches along a side of the images that its positions are made for.
    """

    net: VisionTransformer

    def __init__(self, name: str, channels: int, stem: str, normalisation: Normalisation, grid: int) -> None:
        super().__init__(name, channels, stem, normalisation)
        require(channels in (1, 3), "channels", "1 or 3", channels)
        self.feature_dim, self.blocks, heads = SHAPES[name]
        self.patch, self.grid = int(stem.removeprefix("patch")), grid
        self.net = VisionTransformer(
            img_size=grid * self.patch, patch_size=self.patch, in_chans=channels, num_classes=0, class_token=False,
            embed_dim=self.feature_dim, depth=self.blocks, num_heads=heads, global_pool="avg", fc_norm=False,
            dynamic_img_size=True, weight_init="jax",
        )  # fmt: skip
        self.net.pos_embed = nn.Parameter(positions(grid, self.feature_dim), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.embed(x)).mean(1)

    def embed(self, x: Tensor) -> Tensor:
        """Patches at their places, [B, N, D], row by row; a ValueError for images that the patch does not divide."""
        require(x.shape[-1] % self.patch == 0, "size", f"a multiple of the ViT's patch, {self.patch} px", x.shape[-1])
        tokens = self.net.patch_embed(x)  # [B, h, w, D]
        places = resample_abs_pos_embed(self.net.pos_embed, [*tokens.shape[1:3]], num_prefix_tokens=0)
        return tokens.flatten(1, 2) + places

    def read(self, tokens: Tensor) -> Tensor:
        """What the blocks make of any number of patches that know their place, normed, [B, n, D]."""
        for block in self.net.blocks:
            tokens = block(tokens)
        return self.net.norm(tokens)

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """The maps [B, D, h, w] after each block, `block1` on, the last one normed."""
        side, tokens, maps = x.shape[-1] // self.patch, self.embed(x), {}
        for i, block in enumerate(self.net.blocks, 1):
            tokens = self.net.norm(block(tokens)) if i == self.blocks else block(tokens)
            maps[f"block{i}"] = cells = tokens.transpose(1, 2).unflatten(2, (side, side))
            tokens = cells.flatten(2).transpose(1, 2)  # through the map, for a gradient to find it
        return maps

    def depth(self, parameter_name: str) -> int:
        """0 of patches and positions, then one more with each block; the norm belongs to the last."""
        _, inside, rest = parameter_name.partition("blocks.")
        return int(rest.partition(".")[0]) + 1 if inside else self.blocks if ".norm." in f".{parameter_name}" else 0

    def drop_path(self, rate: float) -> None:
        for i, block in enumerate(self.net.blocks):
            own = rate * i / (self.blocks - 1)
            block.drop_path1, block.drop_path2 = (DropPath(own).train(self.training) for _ in range(2))

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's positions for this grid, its filters for this patch (arXiv 2212.08013) and these channels."""
        found = dict(state)
        if (filters := state.get(PATCHES)) is not None:
            filters = filters.sum(1, keepdim=True) if self.in_channels == 1 else filters
            found[PATCHES] = resample_patch_embed(filters, [self.patch, self.patch])
        if (places := state.get("pos_embed")) is not None:
            places = places[:, places.shape[1] - math.isqrt(places.shape[1]) ** 2 :]  # without the class token's
            found["pos_embed"] = resample_abs_pos_embed(places, [self.grid, self.grid], num_prefix_tokens=0)
        return found

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"grid": self.grid}


def as_vit(state: dict[str, Tensor]) -> dict[str, Any] | None:
    """What a ViT of this state would say of itself, under timm's statistics; None where it is none of `SHAPES`."""
    width, channels, side, _ = state[PATCHES].shape
    blocks = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    names = [name for name, shape in SHAPES.items() if shape[:2] == (width, blocks)]
    if not names or "pos_embed" not in state:
        return None
    statistics = STATISTICS.for_channels(channels) if channels in (1, 3) else STATISTICS
    about = {"backbone": names[0], "channels": channels, "stem": f"patch{side}", **vars(statistics)}
    return about | {"grid": math.isqrt(state["pos_embed"].shape[1])}
