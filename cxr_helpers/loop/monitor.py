"""What is measured while a run trains: the online and kNN probes on val, the collapse panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset
from ..methods import Method
from ..probe import (
    OnlineProbe,
    accuracy,
    alignment,
    auc_score,
    effective_rank,
    extract_features,
    feature_std,
    knn_probe,
    per_label_auc,
    projection_std,
    uniformity,
)

__all__ = ["embedding_panel", "validate"]


def embedding_panel(outputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Alignment, uniformity and spread of the embeddings of one training batch, for methods that have two."""
    if "z_a" not in outputs:
        return {}
    z_a, z_b = (outputs[k].detach().float().cpu().numpy() for k in ("z_a", "z_b"))
    return {
        "alignment": alignment(z_a, z_b),
        "uniformity": uniformity(z_a),
        "projection_std": projection_std(z_a),
    }


def validate(
    method: Method, probe: OnlineProbe, dataset: Dataset, *, device: torch.device, precision: str, knn_bank: int
) -> dict[str, float]:
    """The online probe and kNN on val, and spread and rank of val's features.

    Args:
        method: its `encode` makes the features, under its backbone's normalisation.
        knn_bank: labelled training images that kNN looks at, the same draw in every epoch.
    Returns:
        `feature_std`, `effective_rank`, `online_auc` (`online_auc/<label>` too for multi-label) and `knn_auc`;
        accuracies for multi-class. Where features are not finite, `feature_std` alone.
    """
    options: dict[str, Any] = {"device": device, "precision": precision}
    normalisation = method.backbone.normalisation
    val = extract_features(method.encode, dataset.val, normalisation, **options).labelled()
    if not np.isfinite(val.x).all():
        return {"feature_std": float("nan")}
    row = {"feature_std": feature_std(val.x), "effective_rank": effective_rank(val.x)}
    row |= _scored(dataset, val.labels, probe.scores(torch.from_numpy(val.x).to(device)))
    bank_split = dataset.train.take(_knn_rows(dataset, knn_bank))
    bank = extract_features(method.encode, bank_split, normalisation, **options)
    near = knn_probe(bank, val, task=dataset.task, num_outputs=dataset.num_outputs, device=device)
    name, metric = _main_metric(dataset)
    return row | {f"knn_{name}": metric(val.labels, near)}


def _knn_rows(dataset: Dataset, knn_bank: int) -> np.ndarray:
    labelled = dataset.train.labelled.nonzero().squeeze(1).numpy()
    return np.sort(np.random.default_rng(0).permutation(labelled)[:knn_bank])


def _main_metric(dataset: Dataset) -> tuple[str, Callable[[Any, Any], float]]:
    return ("accuracy", accuracy) if dataset.task == "multiclass" else ("auc", auc_score)


def _scored(dataset: Dataset, labels: np.ndarray, scores: Any) -> dict[str, float]:
    """The online probe's figures, for multi-label also of each label (nan without both classes in val)."""
    name, metric = _main_metric(dataset)
    row = {f"online_{name}": metric(labels, scores)}
    if dataset.task == "multilabel":
        per_label = per_label_auc(labels, scores)
        row |= {f"online_auc/{c}": float(v) for c, v in zip(dataset.class_names, per_label, strict=True)}
    return row
