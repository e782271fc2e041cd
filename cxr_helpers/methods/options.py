"""What each method lets one choose, and the training values it takes where the configuration says None. No torch here.

Declared defaults are the papers'; a recipe's `options` are this package's, for images and batches as small as here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..fields import Checked, declare, require

__all__ = [
    *("ConsistencyOptions", "InpaintingOptions", "MAEOptions", "Options", "RotationOptions", "SimCLROptions"),
    *("SupervisedOptions", "VICRegOptions"),
]


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """Base of a method's options: fields made by `declare`, and a `recipe` of what differs from the one here."""

    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",  # some 550 steps in 30 epochs: LARS with a long warm-up has little time
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "batch_size": 128,
        "warmup_epochs": 1,
    }


@dataclass(frozen=True, kw_only=True)
class SimCLROptions(Options):
    """Of SimCLR (arXiv 2002.05709)."""

    temperature: float = declare(
        0.2, "the paper's best on ImageNet is .1, on CIFAR .5; solo-learn's is .2", low=0, above=True
    )
    hidden_dim: int = declare(512, "the paper: as wide as the features", low=1)
    output_dim: int = declare(128, "the paper", low=1)
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 2e-3, "batch_size": 256, "warmup_epochs": 3}  # 510 negatives


@dataclass(frozen=True, kw_only=True)
class VICRegOptions(Options):
    """Of VICReg (arXiv 2105.04906)."""

    invariance_weight: float = declare(25.0, "the paper", low=0)
    variance_weight: float = declare(25.0, "the paper", low=0)
    covariance_weight: float = declare(1.0, "the paper", low=0)
    hidden_dim: int = declare(8192, "the paper, behind ResNet-50", low=1)
    output_dim: int = declare(8192, "the paper, behind ResNet-50", low=1)
    recipe: ClassVar[Mapping[str, Any]] = {  # optimizer as SimCLR's, so that the methods differ in the loss
        "lr": 1e-3,  # a trial at 4e-3 (wider head) had half the effective rank after 4 epochs
        "batch_size": 128,  # no negatives to gain from larger ones, and twice the steps
        "options": {
            "invariance_weight": 10.0,  # at 25 a spread of 1 needs views that correlate by .75, here by .375
            "hidden_dim": 1024,  # the paper's expander is far wider than its features; this is twice
            "output_dim": 64,  # of the order of the batch: 8192 cannot reach unit variance on 128 images
        },
    }


@dataclass(frozen=True, kw_only=True)
class SupervisedOptions(Options):
    """Of training on labels."""

    label_smoothing: float = declare(0.0, "none: the labels are taken at their word", low=0, high=1, below=True)
    layer_decay: float = declare(
        1.0, "rate of a block over that of the next one up; the papers' .55-.75 for a ViT", low=0, above=True, high=1
    )
    drop_path: float = declare(0.0, "a ViT's branches left out, in its last block; the papers' .1-.2", low=0, high=0.9)
    recipe: ClassVar[Mapping[str, Any]] = {"weight_decay": 1e-2, "warmup_epochs": 2}


PRETEXT = {"lr": 4e-3, "batch_size": 64}  # small batches and many steps: images set their task each for itself


@dataclass(frozen=True, kw_only=True)
class RotationOptions(Options):
    """Of telling quarter turns (RotNet, arXiv 1803.07728)."""

    copies: int = declare(4, "turns of each image in a step; 4, as in the paper, are all", low=1, high=4)
    recipe: ClassVar[Mapping[str, Any]] = PRETEXT


@dataclass(frozen=True, kw_only=True)
class ConsistencyOptions(Options):
    """Of telling whole images from rearranged ones."""

    copies: int = declare(2, "2 shows each image whole and rearranged, 1 draws which", low=1, high=2)
    corruptions: str = declare("rotations flips halves quadrants", "kinds of them, with blanks between")
    recipe: ClassVar[Mapping[str, Any]] = PRETEXT

    def __post_init__(self) -> None:
        super().__post_init__()
        asked, known = self.corruptions.split(), type(self).corruptions.split()
        require(bool(asked) and {*asked} <= {*known}, "corruptions", f"among {', '.join(known)}", self.corruptions)


def _mask_ratio() -> Any:
    why = "the paper, on natural images; films repeat themselves more (Medical MAE: .9)"
    return declare(0.75, why, unit="of the patches", low=0, above=True, high=1, below=True)


def _centring() -> Any:
    return declare(0.0, "0 hides patches anywhere; above, rather in the middle: weight exp(-centring r²)", low=0)


@dataclass(frozen=True, kw_only=True)
class InpaintingOptions(Options):
    """Of painting what is hidden."""

    area_min: float = declare(0.2, "smallest rectangle", unit="of the area", low=0.01, high=0.9)
    area_max: float = declare(0.5, "largest rectangle", unit="of the area", low=0.01, high=0.9)
    fill: str = declare("mean", "what the encoder sees there: the mean of the rest, or zero", choices=("mean", "zero"))
    skips: bool = declare(False, "maps of the encoder beside the decoder's: better pictures, poorer features")
    patch: int = declare(0, "side of the patches hidden; 0 hides one rectangle instead", unit="px", low=0)
    mask_ratio: float = _mask_ratio()
    centring: float = _centring()
    recipe: ClassVar[Mapping[str, Any]] = PRETEXT

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.area_min <= self.area_max, "area_max", f"at least area_min, {self.area_min}", self.area_max)


@dataclass(frozen=True, kw_only=True)
class MAEOptions(Options):
    """Of masked autoencoding (arXiv 2111.06377)."""

    mask_ratio: float = _mask_ratio()
    centring: float = _centring()
    norm_pix: bool = declare(True, "the paper's better target: each patch by its own mean and deviation")
    decoder_dim: int = declare(512, "the paper; heads of 32", low=32)
    decoder_depth: int = declare(8, "blocks; the paper", low=1)
    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw95",
        "lr": 5e-4,  # the paper's is 1.5e-4 for steps of 4,096 images: a rate of 2.4e-3
        "weight_decay": 0.05,
        "batch_size": 256,
        "warmup_epochs": 5,
        "options": {"decoder_dim": 128, "decoder_depth": 2},  # beside an encoder of 192 and 6 blocks or more
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.decoder_dim % 32 == 0, "decoder_dim", "a multiple of 32", self.decoder_dim)
