"""Training on labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import AugmentationPolicy, OneView, Views
from .base import Batch, Method
from .options import SupervisedOptions

__all__ = ["Supervised"]


class Supervised(Method):
    """Classification on labels: the baseline from scratch and, from an `init` file, end-to-end fine-tuning."""

    Options = SupervisedOptions
    needs_labels: ClassVar[bool] = True

    def make_head(self) -> nn.Linear:
        return nn.Linear(self.backbone.feature_dim, self.target.num_outputs)

    def views(self, policy: AugmentationPolicy, size: int) -> Views:
        return OneView(policy, size)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        features = self.backbone(batch.views[0])
        return {"features": features, "logits": self.head(features), "labels": batch.labels}

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, labels = outputs["logits"].float(), outputs["labels"]
        smoothing = self.options.label_smoothing
        if self.target.task == "multiclass":
            return {"loss": F.cross_entropy(logits, labels, label_smoothing=smoothing)}
        truth = labels.reshape(logits.shape).float() * (1 - smoothing) + smoothing / 2
        weight = self.target.positive_weight
        return {"loss": F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight)}

    def classifier(self) -> nn.Linear:
        assert isinstance(self.head, nn.Linear)
        return self.head
