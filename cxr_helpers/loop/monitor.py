"""What is measured while a run trains: the online and kNN probes on val, the collapse panel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

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
    predict,
    projection_std,
    uniformity,
)
from .devices import mixed_precision
from .fit import DivergedError

__all__ = ["BestEpoch", "embedding_panel", "validate"]


class BestEpoch:
    """The weights of a module after the epoch that was best on val so far, the earlier of equals, on the CPU."""

    def __init__(self) -> None:
        self.epoch, self.figure, self.weights = 0, -math.inf, dict[str, Tensor]()

    def offer(self, module: nn.Module, epoch: int, figure: float) -> None:
        """Keep a copy of the module's weights if the figure is above that of every epoch before."""
        if figure > self.figure:
            weights = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
            self.epoch, self.figure, self.weights = epoch, figure, weights

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)


def embedding_panel(outputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Alignment, uniformity and spread of the embeddings of one training batch, for methods that have two."""
    if "z_a" not in outputs:
        return {}
    z_a, z_b = (outputs[k].detach().float().cpu().numpy() for k in ("z_a", "z_b"))
    return {"alignment": alignment(z_a, z_b), "uniformity": uniformity(z_a), "projection_std": projection_std(z_a)}


def validate(
    method: Method, probe: OnlineProbe | None, dataset: Dataset, fabric: Fabric, *, knn_bank: int, own: bool = False
) -> dict[str, float]:
    """The online probe and kNN on val, and spread and rank of val's features.

    Args:
        method: its `encode` makes the features, under its backbone's normalisation.
        probe: None for data without labels: then all val images count, and nothing is probed.
        knn_bank: labelled training images that kNN looks at, the same draw in every epoch.
        own: measure the method's own classifier, too, as `head_auc`.
    Returns:
        `feature_std`, `effective_rank`, `online_auc` (`online_auc/<label>` too for multi-label) and `knn_auc`;
        accuracies for multi-class.
    Raises:
        DivergedError: a feature is not finite.
    """
    normalisation = method.backbone.normalisation
    where: dict[str, Any] = {"device": fabric.device, "precision": mixed_precision(fabric)}
    val = extract_features(method.encode, dataset.val, normalisation, **where)
    val = val if probe is None else val.labelled()
    if not np.isfinite(val.x).all():
        raise DivergedError("features of val became nan or infinite")
    row = {"feature_std": feature_std(val.x), "effective_rank": effective_rank(val.x)}
    if probe is None:
        return row
    name, metric = ("accuracy", accuracy) if dataset.task == "multiclass" else ("auc", auc_score)
    online = probe.scores(torch.from_numpy(val.x).to(fabric.device))
    row[f"online_{name}"] = metric(val.labels, online)
    if own and (head := method.classifier()) is not None:
        logits = head(torch.from_numpy(val.x).to(fabric.device)).detach().double().cpu().numpy()
        row[f"head_{name}"] = metric(val.labels, predict(logits, dataset.task))
    if dataset.task == "multilabel":  # nan without both classes in val
        aucs = per_label_auc(val.labels, online)
        row |= {f"online_auc/{label}": float(auc) for label, auc in zip(dataset.class_names, aucs, strict=True)}
    rows = np.random.default_rng(0).permutation(dataset.train.labelled.nonzero().squeeze(1).numpy())[:knn_bank]
    bank = extract_features(method.encode, dataset.train.take(np.sort(rows)), normalisation, **where)
    near = knn_probe(bank, val, task=dataset.task, num_outputs=dataset.num_outputs, device=fabric.device)
    return row | {f"knn_{name}": metric(val.labels, near)}
