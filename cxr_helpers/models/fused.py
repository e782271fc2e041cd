"""Several encoders as one network, each under its own normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..augment import Normalisation, normalise
from ..config import SEVERAL
from .backbone import Backbone

__all__ = ["Fused"]


class Fused(Backbone):
    """Encoders side by side: features `[B, D_1 + D_2 + ...]` of images in [0, 1].

    Raises:
        ValueError: encoders for other images: other channels, or stems for other sizes.
    """

    def __init__(self, parts: Sequence[Backbone]) -> None:
        first = parts[0]
        for part in parts:
            if (part.in_channels, part.stem) != (first.in_channels, first.stem):
                kinds = ", ".join(f"{p.in_channels} channels with stem {p.stem}" for p in parts)
                raise ValueError(f"encoders must take the same images to be fused, got {kinds}")
        as_it_is = Normalisation((0.0,), (1.0,)).for_channels(first.in_channels)
        super().__init__(SEVERAL.join(p.name for p in parts), first.in_channels, first.stem, as_it_is)
        self.parts = tuple(parts)  # a tuple: their parameters are those of `net`
        self.net = nn.ModuleList(part.net for part in parts)
        self.feature_dim = sum(part.feature_dim for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(normalise(x, part.normalisation)) for part in self.parts], dim=1)

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        maps = [part.stages(normalise(x, part.normalisation)) for part in self.parts]
        return {name: torch.cat([own[name] for own in maps], dim=1) for name in maps[0]}

    def depth(self, parameter_name: str) -> int:
        prefix, _, inside = parameter_name.removeprefix("net.").partition(".")
        return self.parts[int(prefix)].depth(f"net.{inside}")

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"parts": [part.describe() for part in self.parts]}
