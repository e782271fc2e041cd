"""Training on labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import AugmentationPolicy, OneView, Views
from .base import Batch, Method
from .options import SupervisedOptions

__all__ = ["Supervised"]


class Supervised(Method):
    """Classification on labels: the baseline from scratch and, from an `init` file, end-to-end fine-tuning.

    Options `layer_decay` and `drop_path` are the recipe of fine-tuning a ViT (BEiT, arXiv 2106.08254; MAE).
    """

    Options = SupervisedOptions
    needs_labels: ClassVar[bool] = True

    def make_head(self) -> nn.Linear:
        if self.options.drop_path:
            self.backbone.drop_path(self.options.drop_path)
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

    def parameter_groups(self, *, weight_decay: float, backbone_lr_factor: float) -> list[dict[str, Any]]:
        """As usual but for `layer_decay`: a block has that part of the rate of the next one up, the head is the top."""
        groups = super().parameter_groups(weight_decay=weight_decay, backbone_lr_factor=backbone_lr_factor)
        decay = self.options.layer_decay
        if decay == 1:
            return groups
        depths = {id(p): self.backbone.depth(name) for name, p in self.backbone.named_parameters()}
        top, split = max(depths.values()) + 1, []
        for group in groups:
            by_depth = defaultdict(list)
            for p in group["params"]:
                by_depth[depths.get(id(p), top)].append(p)
            for depth, params in by_depth.items():
                split.append({**group, "params": params, "lr_factor": group["lr_factor"] * decay ** (top - depth)})
        return split

    def classifier(self) -> nn.Linear:
        assert isinstance(self.head, nn.Linear)
        return self.head
