"""Joint embedding: views of one image shall agree in their embeddings, those of different images shall not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .base import Batch, Method, projection_head
from .losses import nt_xent_loss, vicreg_loss
from .options import SimCLROptions, VICRegOptions

__all__ = ["SimCLR", "VICReg"]


class _JointEmbedding(Method):
    """Two views through one backbone and one head as a single batch: one BatchNorm population for both.

    VICReg's official code passes them one after the other; with one image population the statistics agree in
    expectation, and one large batch is faster.
    """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        features = self.backbone(torch.cat(batch.views))  # [2B, feature_dim]
        z_a, z_b = self.head(features).chunk(2)
        return {"features": features.chunk(2)[0], "z_a": z_a, "z_b": z_b}


class SimCLR(_JointEmbedding):
    """Contrastive learning with in-batch negatives (arXiv 2002.05709)."""

    Options = SimCLROptions

    def make_head(self) -> nn.Module:
        sizes = (self.backbone.feature_dim, self.options.hidden_dim, self.options.output_dim)
        return projection_head(sizes, norm=True)

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": nt_xent_loss(outputs["z_a"], outputs["z_b"], temperature=self.options.temperature)}


class VICReg(_JointEmbedding):
    """Variance-invariance-covariance regularisation, no negatives (arXiv 2105.04906)."""

    Options = VICRegOptions

    def make_head(self) -> nn.Module:
        o = self.options
        return projection_head((self.backbone.feature_dim, o.hidden_dim, o.hidden_dim, o.output_dim), norm=True)

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {name: value for name, value in vars(self.options).items() if name.endswith("_weight")}
        return vicreg_loss(outputs["z_a"], outputs["z_b"], **weights)
