"""Self-supervised learning on chest X-rays: data, policies, methods, one loop, probes and statistics."""

from typing import TYPE_CHECKING

from .lazy import lazily

if TYPE_CHECKING:
    from .augment import POLICIES, AugmentationPolicy, TwoViews, eval_transform
    from .config import PretrainConfig, ProbeConfig, RuntimeConfig
    from .data import load_dataset
    from .evaluate import evaluate
    from .loop import LARS, lr_at
    from .methods import METHODS, nt_xent_loss, vicreg_loss
    from .pretrain import pretrain
    from .probe import bootstrap_ci, knn_probe, linear_probe, paired_bootstrap
    from .report.explorer import explore_augmentations

__all__ = lazily(
    __name__,
    {
        "augment": "POLICIES AugmentationPolicy TwoViews eval_transform",
        "config": "PretrainConfig ProbeConfig RuntimeConfig",
        "data": "load_dataset",
        "evaluate": "evaluate",
        "loop": "LARS lr_at",
        "methods": "METHODS nt_xent_loss vicreg_loss",
        "pretrain": "pretrain",
        "probe": "bootstrap_ci knn_probe linear_probe paired_bootstrap",
        "report.explorer": "explore_augmentations",
    },
)
