"""The detector: torchvision's Faster R-CNN with a feature pyramid on the stages of one of this package's backbones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ..config import DetectConfig
from ..fields import require
from ..models import Backbone

__all__ = ["Detector", "Films"]

STAGES = ("layer1", "layer2", "layer3", "layer4")
SMALLEST = 1 / 16  # of the film's side: the anchors of the finest map; twice that on each that follows
RATIOS = (0.5, 1.0, 2.0)  # of an anchor's height to its width
POOL = 7  # side of what is cut out of a map for a region
PROPOSALS = 500  # of a map, half of them left after near duplicates
MOST_FOUND = 100  # boxes of a film, as many as COCO counts
LEAST_SCORE = 0.01


class Films:  # neither tuple nor dataclass, in which Fabric would round boxes to half precision
    """A batch of films.

    Args:
        images: each [C, S, S], normalised. targets: of each `boxes` [n, 4] in pixels, `labels` [n] from 1; or None.
    """

    def __init__(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> None:
        self.images, self.targets = images, targets


class ExactCoder(BoxCoder):
    """Boxes in float32 under autocast too, where torchvision rounds them to the precision of the network's outputs."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        return super().decode_single(rel_codes.float(), boxes)


class Pyramid(nn.Module):
    """A backbone's maps from `first` on as a feature pyramid of equal channels, and a coarser one above them."""

    def __init__(self, backbone: Backbone, first: str, channels: int, size: int) -> None:
        super().__init__()
        self.body, self.names, self.out_channels = backbone, STAGES[STAGES.index(first) :], channels
        with torch.no_grad():
            maps = backbone.eval().stages(torch.zeros(1, backbone.in_channels, size, size))
        widths = [maps[name].shape[1] for name in self.names]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps `[B, channels, h, w]` by the name of their stage, and `pool`."""
        maps = self.body.stages(x)
        found: dict[str, Tensor] = self.fpn({name: maps[name] for name in self.names})
        return found


class Detector(FasterRCNN):
    """Faster R-CNN (arXiv 1506.01497) with a pyramid (1612.03144), every part of it trained.

    torchvision's own builder fetches ImageNet's weights unasked, freezes BatchNorm and the first stages. Here nothing
    is, and BatchNorm takes the statistics of the batch in training, running averages of them afterwards.

    Args:
        backbone: with its initial weights; what it is made of is known to the pyramid by its `stages` alone.
        num_findings: L; labels are 1 to L, 0 is background.
    """

    def __init__(self, backbone: Backbone, num_findings: int, config: DetectConfig) -> None:
        c, channels = config, backbone.in_channels
        require(hasattr(backbone.net, STAGES[-1]), "backbone", "a ResNet, whose maps have several sizes", backbone.name)
        pyramid = Pyramid(backbone, c.first_stage, c.pyramid_channels, c.size)
        sizes = tuple((c.size * SMALLEST * 2**level,) for level in range(len(pyramid.names) + 1))
        super().__init__(
            pyramid,
            rpn_anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
            box_roi_pool=MultiScaleRoIAlign(list(pyramid.names), POOL, sampling_ratio=2),
            box_head=TwoMLPHead(c.pyramid_channels * POOL**2, c.head_width),
            box_predictor=FastRCNNPredictor(c.head_width, num_findings + 1),
            box_batch_size_per_image=c.regions,
            box_detections_per_img=MOST_FOUND,
            box_score_thresh=LEAST_SCORE,
            rpn_pre_nms_top_n_train=PROPOSALS,
            rpn_pre_nms_top_n_test=PROPOSALS,
            rpn_post_nms_top_n_train=PROPOSALS // 2,
            rpn_post_nms_top_n_test=PROPOSALS // 2,
            image_mean=[0.0] * channels,  # films come normalised, and of this size
            image_std=[1.0] * channels,
            min_size=c.size,
            max_size=c.size,
            _skip_resize=True,  # in training; else it is by the two above
        )
        self.rpn.box_coder = ExactCoder(self.rpn.box_coder.weights)
        self.roi_heads.box_coder = ExactCoder(self.roi_heads.box_coder.weights)

    def forward(self, films: Films) -> Any:
        """Losses by name while it is trained; else of each film `boxes` [n, 4] in pixels, `labels` and `scores`."""
        return super().forward(films.images, films.targets)
