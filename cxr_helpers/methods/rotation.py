"""Which way up an image is; and what it shares with other tasks in which copies of an image are told apart.

Copies are exact rearrangements of the image's own pixels: what gives an answer away must be in the picture, not in how
it was made.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import QUARTER_TURNS, rearrange
from .base import Batch, PretextTask
from .options import RotationOptions

__all__ = ["Recognition", "Rotation", "where"]


class Recognition(PretextTask):
    """Copies `[B, c, C, S, S]` of an image, each of a `KINDS`; the head says something of each."""

    def _read(self, x: Tensor, kinds: Tensor) -> dict[str, Tensor]:
        """Features of the first copy and what the head says of all, in one pass: one BatchNorm population."""
        copies = rearrange(x.repeat_interleave(kinds.shape[1], 0), kinds.flatten())
        features = self.backbone(copies)
        said = self.head(features).unflatten(0, kinds.shape)
        return {"features": features[:: kinds.shape[1]], "logits": said, "kinds": kinds}


class Rotation(Recognition):
    """Which quarter turn an image has had (RotNet, arXiv 1803.07728)."""

    Options = RotationOptions
    num_draws = 1

    def make_head(self) -> nn.Module:
        return nn.Linear(self.backbone.feature_dim, len(QUARTER_TURNS))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.draws is not None
        copies, turns = self.options.copies, len(QUARTER_TURNS)
        first = (batch.draws[:, 0] * turns).long() if copies < turns else torch.zeros_like(batch.indices)
        return self._read(batch.views[0], (first[:, None] + torch.arange(copies, device=first.device)) % turns)

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, turns = outputs["logits"].float().flatten(0, 1), outputs["kinds"].flatten()
        return {"loss": F.cross_entropy(logits, turns), "accuracy": (logits.argmax(1) == turns).float().mean()}

    def val_figures(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        right = (outputs["logits"].argmax(2) == outputs["kinds"]).float()
        of_turns = {f"accuracy/{name}": where(right, outputs["kinds"] == i) for i, name in enumerate(QUARTER_TURNS)}
        return {"accuracy": right, **of_turns}


def where(values: Tensor, chosen: Tensor) -> Tensor:
    """The values where chosen, nan elsewhere."""
    return values.where(chosen, torch.nan)
