"""Whether an image is as it was, or its parts have changed places."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import CORRUPTIONS, KINDS, draw_corruption
from .base import Batch
from .options import ConsistencyOptions
from .rotation import Recognition, where

__all__ = ["Consistency"]


class Consistency(Recognition):
    """Whether an image is as it was or its parts have changed places."""

    Options = ConsistencyOptions
    num_draws = 3

    def make_head(self) -> nn.Module:
        return nn.Linear(self.backbone.feature_dim, 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.draws is not None
        corrupted = draw_corruption(batch.draws, tuple(self.options.corruptions.split()))
        if self.options.copies == 1:
            kinds = torch.where(batch.draws[:, 2] < 0.5, 0, corrupted)[:, None]
        else:
            kinds = torch.stack([torch.zeros_like(corrupted), corrupted], dim=1)
        return self._read(batch.views[0], kinds)

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, corrupted = outputs["logits"].float().squeeze(2), (outputs["kinds"] > 0).float()
        loss = F.binary_cross_entropy_with_logits(logits, corrupted)
        return {"loss": loss, "accuracy": ((logits > 0) == (corrupted > 0)).float().mean()}

    def val_figures(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kinds, found = outputs["kinds"], {}
        right = ((outputs["logits"].squeeze(2) > 0) == (kinds > 0)).float()
        for name, members in {"intact": KINDS[:1], **CORRUPTIONS}.items():
            first = KINDS.index(members[0])
            found[f"accuracy/{name}"] = where(right, (kinds >= first) & (kinds < first + len(members)))
        return {"accuracy": right, **found}
