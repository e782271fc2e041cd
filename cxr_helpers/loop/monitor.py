"""What is measured while a run trains: the online and kNN probes on val, the collapse panel and its bounds."""

from __future__ import annotations

from collections.abc import Mapping
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
from .fit import DivergedError

__all__ = ["embedding_panel", "signs_of_collapse", "validate"]

# An untrained ResNet-18 has a feature std of .12 and an effective rank of 190, after one epoch a uniformity of -1.
BOUNDS = {"feature_std": (0.01, "below"), "effective_rank": (2.0, "below"), "uniformity": (-0.1, "above")}


def embedding_panel(outputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Alignment, uniformity and spread of the embeddings of one training batch, for methods that have two."""
    if "z_a" not in outputs:
        return {}
    z_a, z_b = (outputs[k].detach().float().cpu().numpy() for k in ("z_a", "z_b"))
    return {"alignment": alignment(z_a, z_b), "uniformity": uniformity(z_a), "projection_std": projection_std(z_a)}


def signs_of_collapse(row: Mapping[str, float]) -> list[str]:
    """The `BOUNDS` that an epoch's features and embeddings break, each as a few words; what is absent is not judged."""
    found = []
    for name, (bound, side) in BOUNDS.items():
        value = row.get(name, np.nan)  # comparisons with nan are false
        if value < bound if side == "below" else value > bound:
            found.append(f"{name} {value:.2g} {side} {bound:g}")
    return found


def validate(
    method: Method, probe: OnlineProbe | None, dataset: Dataset, *, knn_bank: int, **where: Any
) -> dict[str, float]:
    """The online probe and kNN on val, and spread and rank of val's features.

    Args:
        method: its `encode` makes the features, under its backbone's normalisation.
        probe: None for data without labels: then all val images count, and nothing is probed.
        knn_bank: labelled training images that kNN looks at, the same draw in every epoch.
        where: `device` and `precision`.
    Returns:
        `feature_std`, `effective_rank`, `online_auc` (`online_auc/<label>` too for multi-label) and `knn_auc`;
        accuracies for multi-class.
    Raises:
        DivergedError: a feature is not finite.
    """
    normalisation = method.backbone.normalisation
    val = extract_features(method.encode, dataset.val, normalisation, **where)
    val = val if probe is None else val.labelled()
    if not np.isfinite(val.x).all():
        raise DivergedError("features of val became nan or infinite")
    row = {"feature_std": feature_std(val.x), "effective_rank": effective_rank(val.x)}
    if probe is None:
        return row
    name, metric = ("accuracy", accuracy) if dataset.task == "multiclass" else ("auc", auc_score)
    online = probe.scores(torch.from_numpy(val.x).to(where["device"]))
    row[f"online_{name}"] = metric(val.labels, online)
    if dataset.task == "multilabel":  # nan without both classes in val
        aucs = per_label_auc(val.labels, online)
        row |= {f"online_auc/{label}": float(auc) for label, auc in zip(dataset.class_names, aucs, strict=True)}
    rows = np.random.default_rng(0).permutation(dataset.train.labelled.nonzero().squeeze(1).numpy())[:knn_bank]
    bank = extract_features(method.encode, dataset.train.take(np.sort(rows)), normalisation, **where)
    near = knn_probe(bank, val, task=dataset.task, num_outputs=dataset.num_outputs, device=where["device"])
    return row | {f"knn_{name}": metric(val.labels, near)}
