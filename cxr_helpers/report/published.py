"""Published figures that a reader will compare with; none was obtained by this project's protocol."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

__all__ = ["PUBLISHED", "Published", "published_table"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published test AUC (accuracy for CIFAR-10), obtained by another protocol than this project's."""

    dataset: str
    label: str
    value: float
    protocol: str
    source: str


_MEDMNIST = "MedMNIST v2 (10.1038/s41597-022-01721-8)"
_DOERRICH = "Doerrich et al. 2025 (Sci Rep 15:7669)"
_STUDENT = "the report this project starts from"
PUBLISHED = (
    Published(dataset="pneumoniamnist", label="ResNet-18, 28 px up-sampled to 224", value=0.956,
              protocol="supervised from scratch", source=_MEDMNIST),
    Published(dataset="pneumoniamnist", label="ResNet-18 from ImageNet, 224 px", value=0.9691,
              protocol="frozen linear probe, 3 seeds", source=_DOERRICH),
    Published(dataset="pneumoniamnist", label="ResNet-18 from ImageNet, fine-tuned, 224 px", value=0.9804,
              protocol="end to end, 3 seeds", source=_DOERRICH),
    Published(dataset="pneumoniamnist", label="DINO ViT-B/16, 224 px", value=0.9892,
              protocol="frozen linear probe, 3 seeds", source=_DOERRICH),
    Published(dataset="pneumoniamnist", label="SimCLR, student report, 224 px", value=0.9068,
              protocol="linear probe, one seed; its logs say .9218", source=_STUDENT),
    Published(dataset="pneumoniamnist", label="VICReg, student report, 224 px", value=0.9193,
              protocol="linear probe, one seed; its logs say .9463", source=_STUDENT),
    Published(dataset="chestmnist", label="ResNet-18, all images, 28 px up-sampled to 224", value=0.773,
              protocol="supervised from scratch, all of ChestMNIST", source=_MEDMNIST),
    Published(dataset="chestmnist", label="ResNet-18 from ImageNet, all images, 224 px", value=0.7512,
              protocol="frozen linear probe, all of ChestMNIST, 3 seeds", source=_DOERRICH),
    Published(dataset="chestmnist", label="ResNet-18 fine-tuned, all images, 224 px", value=0.7896,
              protocol="end to end, all of ChestMNIST, 3 seeds", source=_DOERRICH),
    Published(dataset="cifar10", label="SimCLR, best 100-epoch recipe found", value=0.856,
              protocol="linear probe, 100 epochs, all images", source="a recipe sheet that names no paper"),
    Published(dataset="cifar10", label="VICReg, 30 epochs", value=0.781,
              protocol="linear probe, 30 epochs, all images", source="EMP-SSL (arXiv 2304.03977)"),
    Published(dataset="cifar10", label="SimCLR, 30 epochs", value=0.663,
              protocol="linear probe, 30 epochs, all images", source="EMP-SSL (arXiv 2304.03977)"),
    Published(dataset="cifar10", label="upper end of the assignment's band", value=0.83,
              protocol="linear probe, 100 epochs, all images", source="the assignment"),
    Published(dataset="cifar10", label="lower end of the assignment's band", value=0.80,
              protocol="linear probe, 100 epochs, all images", source="the assignment"),
    Published(dataset="cifar10", label="SimCLR, student report", value=0.779,
              protocol="linear probe, 100 epochs, all images", source=_STUDENT),
)  # fmt: skip


def published_table(dataset: str) -> pd.DataFrame:
    """Published test figures of a data set, none of them by this project's protocol."""
    columns = ["dataset", "label", "value", "protocol", "source"]
    rows = [[getattr(p, c) for c in columns] for p in PUBLISHED if p.dataset == dataset]
    return pd.DataFrame(rows, columns=columns).assign(status="published, other protocol")
