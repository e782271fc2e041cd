"""Self-supervised learning on chest X-rays: data, policies, methods, one loop, probes and statistics."""

from typing import TYPE_CHECKING, Any

from .augment import POLICIES, AugmentationPolicy, TwoViews, eval_transform
from .config import PretrainConfig, ProbeConfig, RuntimeConfig
from .data import load_dataset
from .evaluate import evaluate
from .loop import LARS, lr_at
from .methods import METHODS, nt_xent_loss, vicreg_loss
from .pretrain import pretrain
from .probe import bootstrap_ci, knn_probe, linear_probe, paired_bootstrap

if TYPE_CHECKING:
    from .report.explorer import explore_augmentations

__all__ = [
    "LARS",
    "METHODS",
    "POLICIES",
    "AugmentationPolicy",
    "PretrainConfig",
    "ProbeConfig",
    "RuntimeConfig",
    "TwoViews",
    "bootstrap_ci",
    "eval_transform",
    "evaluate",
    "explore_augmentations",
    "knn_probe",
    "linear_probe",
    "load_dataset",
    "lr_at",
    "nt_xent_loss",
    "paired_bootstrap",
    "pretrain",
    "vicreg_loss",
]


def __getattr__(name: str) -> Any:
    """The explorer when it is asked for: training needs neither widgets nor figures, and no time to import them."""
    if name == "explore_augmentations":
        from .report.explorer import explore_augmentations

        return explore_augmentations
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
