"""Methods: small modules with one contract, so that the training loop needs to know none of them.

The contract (`Method`):
  `views(policy, size)`  how many views of an image the method wants and how they are made;
  `forward(batch)`       per-sample tensors, `features [B, feature_dim]` of the first view among them; methods with two
                         embeddings publish them as `z_a`, `z_b`, from which the loop draws its collapse panel;
  `loss(outputs)`        `{"loss": scalar, other terms}` of the whole batch;
  `encode(x)`            `[B, feature_dim]`, what every probe uses;
  `after_step(n, total)` optional, e.g. for moving-average targets;
  `classifier()`         optional, the layer that predicts labels from the features, kept with the run and scored;
  `Options`, `recipe`    the method's own options, and the training values it takes where the configuration says None.

A new method is one module like these and one line in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import AugmentationPolicy, OneView, TwoViews
from ..fields import check, declare, read
from ..models import Backbone
from .losses import nt_xent_loss, vicreg_loss

__all__ = ["METHODS", "Batch", "Method", "SimCLR", "Supervised", "Target", "VICReg", "get_options", "projection_head"]


class Batch(NamedTuple):  # not a frozen dataclass, through which Fabric cannot cast what autocast wants cast
    """One training batch: normalised views, each `[B, C, S, S]`, image indices `[B]` and labels (-1 = unlabelled)."""

    views: tuple[Tensor, ...]
    indices: Tensor
    labels: Tensor
    draws: Tensor | None = None  # [B, num_draws] in [0, 1), the method's own randomness


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """What a classification head must predict: task, number of outputs, weights of the positive class (or None)."""

    task: str
    num_outputs: int
    positive_weight: Tensor | None = None


def projection_head(sizes: tuple[int, ...], *, norm: bool) -> nn.Sequential:
    """Linear layers through `sizes`, BatchNorm (if `norm`) and ReLU between them, nothing after the last."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        layers.append(nn.Linear(fan_in, fan_out, bias=last or not norm))  # a bias before BatchNorm does nothing
        if not last:
            layers += [nn.BatchNorm1d(fan_out)] if norm else []
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Method(nn.Module):
    """Base of the methods: a backbone, a head built from frozen options, and the contract of this module.

    Args:
        backbone: maps `[B, C, S, S]` to `[B, feature_dim]`.
        options: an instance of the class's `Options`.
        target: what labels look like; only methods with `needs_labels` look at it.
    """

    Options: ClassVar[type]
    recipe: ClassVar[Mapping[str, Any]]
    needs_labels: ClassVar[bool] = False
    num_draws: ClassVar[int] = 0  # columns of `Batch.draws`
    pairwise: ClassVar[bool] = True  # images meet in the loss; if not, it is a mean over images

    def __init__(self, backbone: Backbone, options: Any, target: Target) -> None:
        super().__init__()
        self.backbone, self.options, self.target = backbone, options, target
        self.head = self.make_head()

    def make_head(self) -> nn.Module:
        """The trainable part behind the backbone."""
        raise TypeError(f"{type(self).__name__} must define make_head")

    def views(self, policy: AugmentationPolicy, size: int) -> OneView | TwoViews:
        """How many views of an image this method wants, and how they are made."""
        return TwoViews(policy, size)

    def encode(self, x: Tensor) -> Tensor:
        """Features `[B, feature_dim]` of normalised images, before any head."""
        return self.backbone(x)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Per-sample outputs, `features` of the first view among them."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`loss` and its terms over the whole batch."""
        raise TypeError(f"{type(self).__name__} must define loss")

    def parameter_groups(self, *, weight_decay: float, backbone_lr_factor: float) -> list[dict[str, Any]]:
        """Every trainable parameter once: of the backbone, then all others; vectors (norms, biases) do not decay."""
        inside = {id(p) for p in self.backbone.parameters()}
        groups = []
        for backbone, factor in ((True, backbone_lr_factor), (False, 1.0)):
            own = [p for p in self.parameters() if p.requires_grad and (id(p) in inside) is backbone]
            for chosen, decay in (
                ([p for p in own if p.ndim > 1], weight_decay),
                ([p for p in own if p.ndim < 2], 0.0),
            ):
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "lr_factor": factor})
        return groups

    def after_step(self, step: int, total: int) -> None:
        """Called after each optimizer step: the `step`-th, from 1, of `total` of the run."""

    def classifier(self) -> nn.Linear | None:
        """The layer that predicts the labels from the features, None for methods that learn without labels."""
        return None


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

    @dataclass(frozen=True, kw_only=True)
    class Options:
        temperature: float = declare(
            0.2, "the paper's best on ImageNet is .1, on CIFAR .5; solo-learn's is .2", low=0, above=True
        )
        hidden_dim: int = declare(512, "the paper: as wide as the features", low=1)
        output_dim: int = declare(128, "the paper", low=1)

        def __post_init__(self) -> None:
            check(self)

    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",  # some 550 steps in 30 epochs: LARS with a long warm-up has little time
        "lr": 2e-3,
        "weight_decay": 1e-4,
        "batch_size": 256,  # 510 negatives
        "warmup_epochs": 3,
    }

    def make_head(self) -> nn.Module:
        o = self.options
        return projection_head((self.backbone.feature_dim, o.hidden_dim, o.output_dim), norm=True)

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": nt_xent_loss(outputs["z_a"], outputs["z_b"], temperature=self.options.temperature)}


class VICReg(_JointEmbedding):
    """Variance-invariance-covariance regularisation, no negatives (arXiv 2105.04906)."""

    @dataclass(frozen=True, kw_only=True)
    class Options:
        invariance_weight: float = declare(25.0, "the paper", low=0)
        variance_weight: float = declare(25.0, "the paper", low=0)
        covariance_weight: float = declare(1.0, "the paper", low=0)
        hidden_dim: int = declare(8192, "the paper, behind ResNet-50", low=1)
        output_dim: int = declare(8192, "the paper, behind ResNet-50", low=1)

        def __post_init__(self) -> None:
            check(self)

    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",  # as SimCLR's, so that the methods differ in the loss
        "lr": 1e-3,  # a trial at 4e-3 (wider head) had half the effective rank after 4 epochs
        "weight_decay": 1e-4,
        "batch_size": 128,  # no negatives to gain from larger ones, and twice the steps
        "warmup_epochs": 1,
        "options": {
            "invariance_weight": 10.0,  # at 25 a spread of 1 needs views that correlate by .75, here by .375
            "hidden_dim": 1024,  # the paper's expander is far wider than its features; this is twice
            "output_dim": 64,  # of the order of the batch: 8192 cannot reach unit variance on 128 images
        },
    }

    def make_head(self) -> nn.Module:
        o = self.options
        return projection_head((self.backbone.feature_dim, o.hidden_dim, o.hidden_dim, o.output_dim), norm=True)

    def loss(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        o = self.options
        return vicreg_loss(
            outputs["z_a"],
            outputs["z_b"],
            invariance_weight=o.invariance_weight,
            variance_weight=o.variance_weight,
            covariance_weight=o.covariance_weight,
        )


class Supervised(Method):
    """Classification on labels: the baseline from scratch and, from an `init` file, end-to-end fine-tuning."""

    @dataclass(frozen=True, kw_only=True)
    class Options:
        label_smoothing: float = declare(0.0, "none: the labels are taken at their word", low=0, high=1, below=True)

        def __post_init__(self) -> None:
            check(self)

    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 1e-2,
        "batch_size": 128,
        "warmup_epochs": 2,
    }
    needs_labels: ClassVar[bool] = True

    def make_head(self) -> nn.Linear:
        return nn.Linear(self.backbone.feature_dim, self.target.num_outputs)

    def views(self, policy: AugmentationPolicy, size: int) -> OneView | TwoViews:
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


METHODS: dict[str, type[Method]] = {"simclr": SimCLR, "vicreg": VICReg, "supervised": Supervised}


def get_options(method: str, changes: Mapping[str, Any]) -> Any:
    """The options of a method, its defaults changed by name.

    Raises:
        ValueError: an unknown method or option, or a value out of range; the message lists what exists.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    kinds = {f.name: str(f.type) for f in fields(METHODS[method].Options)}
    unknown = sorted(map(str, set(changes) - set(kinds)))
    if unknown:
        raise ValueError(f"options of {method} must be among {', '.join(kinds)}, got {', '.join(unknown)}")
    values = {k: read(k, v, kinds[k]) if isinstance(v, str) and kinds[k] != "str" else v for k, v in changes.items()}
    return METHODS[method].Options(**values)
