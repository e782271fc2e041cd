"""BYOL (arXiv 2006.07733) as a method of one's own: `python train.py --method byol:BYOL …` beside this file."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxr_helpers.fields import declare
from cxr_helpers.methods import Batch, Method, Options, projection_head


@dataclass(frozen=True, kw_only=True)
class BYOLOptions(Options):
    momentum: float = declare(
        0.99, "of the teacher at the start, rising to 1; the paper: .996 in 1000 epochs", low=0, high=1
    )
    hidden_dim: int = declare(512, "as wide as the features", low=1)
    output_dim: int = declare(128, "as SimCLR's", low=1)
    recipe: ClassVar = {"lr": 2e-3, "batch_size": 256, "warmup_epochs": 3}  # as SimCLR's


class BYOL(Method):
    """What is predicted from one view shall be what a slow copy of the network makes of the other; no negatives."""

    Options = BYOLOptions
    pairwise = False  # no image meets another in the loss

    def __init__(self, backbone, options, target) -> None:  # type: ignore[no-untyped-def]
        super().__init__(backbone, options, target)
        self.predictor = projection_head((options.output_dim, options.hidden_dim, options.output_dim), norm=True)
        self.teacher = deepcopy(nn.Sequential(self.backbone, self.head)).requires_grad_(False)

    def make_head(self) -> nn.Module:
        return projection_head((self.backbone.feature_dim, self.options.hidden_dim, self.options.output_dim), norm=True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x = torch.cat(batch.views)
        features = self.backbone(x)  # [2B, feature_dim]
        z = self.head(features)
        p_a, p_b = self.predictor(z).chunk(2)
        with torch.no_grad():
            t_a, t_b = self.teacher(x).chunk(2)
        error = 4 - 2 * F.cosine_similarity(p_a, t_b) - 2 * F.cosine_similarity(p_b, t_a)  # [B]
        z_a, z_b = z.chunk(2)
        return {"features": features.chunk(2)[0], "z_a": z_a, "z_b": z_b, "error": error}

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": outputs["error"].mean()}

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        momentum = 1 - (1 - self.options.momentum) * (math.cos(math.pi * step / total) + 1) / 2
        student = nn.Sequential(self.backbone, self.head)
        for slow, fast in zip(self.teacher.parameters(), student.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)
