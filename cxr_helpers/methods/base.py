"""The contract of a method, so that the training loop needs to know none of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn

from ..augment import AugmentationPolicy, OneView, TwoViews, Views
from ..models import Backbone
from .options import Options

__all__ = ["Batch", "Method", "PretextTask", "Target", "projection_head"]


class Batch:  # neither tuple nor dataclass, in which Fabric would round images and draws to half precision
    """One training batch of B images.

    Args:
        views: each [B, C, S, S], normalised. indices: [B]. labels: [B] or [B, L], -1 where there is none.
        draws: [B, num_draws], uniform in [0, 1): the method's own, of (seed, epoch, image) alone.
    """

    def __init__(self, views: tuple[Tensor, ...], indices: Tensor, labels: Tensor, draws: Tensor | None = None) -> None:
        self.views, self.indices, self.labels, self.draws = views, indices, labels, draws


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """What a classification head must predict: task, number of outputs, weights of the positive class (or None)."""

    task: str
    num_outputs: int
    positive_weight: Tensor | None = None


def projection_head(sizes: tuple[int, ...], *, norm: bool) -> nn.Sequential:
    """Linear layers through `sizes`, BatchNorm (if `norm`) and ReLU between them, nothing after the last."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes[:-1]):
        layers.append(nn.Linear(fan_in, fan_out, bias=not norm))  # a bias before BatchNorm does nothing
        layers += [nn.BatchNorm1d(fan_out), nn.ReLU(inplace=True)] if norm else [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class Method(nn.Module, ABC):
    """Base of the methods: a backbone, a head built from frozen options, and what the loop asks of them.

    A method defines `Options` and what is abstract here. Parts other than backbone and head (a decoder, a predictor)
    are made in an `__init__` of its own and train like the head.

    Args:
        backbone: maps `[B, C, S, S]` to `[B, feature_dim]`.
        options: an instance of the class's `Options`.
        target: what labels look like; only methods with `needs_labels` look at it.
    """

    Options: ClassVar[type[Options]]
    needs_labels: ClassVar[bool] = False
    num_draws: int = 0  # columns of `Batch.draws`; where it depends on the size of the images, `views` sets it
    measures_val: ClassVar[bool] = False  # whether `val_figures` has something to say
    pairwise: ClassVar[bool] = True  # images meet in the loss; if not, it is the mean of the losses of equal parts

    def __init__(self, backbone: Backbone, options: Any, target: Target) -> None:
        super().__init__()
        self.backbone, self.options, self.target = backbone, options, target
        self.head = self.make_head()

    @abstractmethod
    def make_head(self) -> nn.Module:
        """The trainable part behind the backbone."""

    def views(self, policy: AugmentationPolicy, size: int) -> Views:
        """How many views of an image this method wants, and how they are made."""
        return TwoViews(policy, size)

    def encode(self, x: Tensor) -> Tensor:
        """Features `[B, feature_dim]` of normalised images, before any head: what every probe uses."""
        return self.backbone(x)

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Per-sample outputs `[B, ...]`, `features [B, feature_dim]` of the first view, as the backbone saw it.

        Two embeddings are called `z_a`, `z_b`: the loop's collapse panel is of them. Dense methods return errors per
        sample, never maps.
        """

    @abstractmethod
    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`loss` and its terms, scalars over the whole batch."""

    def val_figures(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What val says of the task itself, by name: a number per image `[B, ...]`, nan where it says nothing."""
        return {}

    def parameter_groups(self, *, weight_decay: float, backbone_lr_factor: float) -> list[dict[str, Any]]:
        """Every trainable parameter once, for an optimizer: of the backbone, then all others.

        Args:
            weight_decay: of parameters with two dimensions or more; the others (biases, norms) have none.
            backbone_lr_factor: the backbone's `lr_factor`, by which the loop multiplies the scheduled rate; else 1.
        """
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        inside = {id(p) for p in backbone}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in inside]
        groups: list[dict[str, Any]] = []
        for params, factor in ((backbone, backbone_lr_factor), (others, 1.0)):
            matrices, vectors = ([p for p in params if (p.ndim > 1) is wide] for wide in (True, False))
            groups.append({"params": matrices, "weight_decay": weight_decay, "lr_factor": factor})
            groups.append({"params": vectors, "weight_decay": 0.0, "lr_factor": factor})
        return [group for group in groups if group["params"]]

    def after_step(self, step: int, total: int) -> None:
        """Called after each optimizer step, e.g. for a moving average: the `step`-th, from 1, of `total` of the run."""

    def classifier(self) -> nn.Linear | None:
        """The layer that predicts the labels from the features, kept with the run and scored; None without labels."""
        return None


class PretextTask(Method):
    """Base of tasks that an image sets by itself, from one view of it; images do not meet in the loss."""

    pairwise: ClassVar[bool] = False
    measures_val: ClassVar[bool] = True

    def views(self, policy: AugmentationPolicy, size: int) -> Views:
        return OneView(policy, size)
