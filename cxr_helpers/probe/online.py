"""Probes without an exact solution: the online probe of pretraining, nearest neighbours, and the SGD probe's curve.

No gradient ever reaches a backbone from here. Rows labelled -1 are dropped everywhere.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ProbeConfig
from .features import Features, labelled_rows, standardisation
from .linear import check_both_classes, count_outputs, targets
from .metrics import Floats, accuracy, auc_score

if TYPE_CHECKING:
    from ..data import Task


def _probabilities(logits: Tensor, task: Task) -> Floats:
    """Logits [N, num_outputs] to probabilities: softmax for multi-class, sigmoid else; binary as [N]."""
    scores = logits.softmax(dim=1) if task == "multiclass" else logits.sigmoid()
    return (scores.squeeze(1) if task == "binary" else scores).double().cpu().numpy()


class OnlineProbe(nn.Module):
    """One linear layer beside pretraining, with its own AdamW, on detached features in float32.

    Args:
        feature_dim: D.
        task: binary, multiclass or multilabel.
        num_outputs: 1 (binary), number of classes, or number of labels.
        train_labels: int [N] or [N, L], -1 = not labelled; class weights negatives / positives come from it.
        lr: learning rate of AdamW (no weight decay).
        max_weight: cap of the class weights (and 1 / max_weight their floor).
    """

    pos_weight: Tensor

    def __init__(
        self,
        feature_dim: int,
        task: Task,
        num_outputs: int,
        train_labels: Tensor,
        *,
        lr: float = 1e-3,
        max_weight: float = 10.0,
    ) -> None:
        super().__init__()
        self.task = task
        self.linear = nn.Linear(feature_dim, num_outputs)
        labelled = labelled_rows(train_labels)
        self.all_labelled = bool(labelled.all())
        ratio = torch.ones(num_outputs)
        if task != "multiclass" and bool(labelled.any()):
            rate = train_labels[labelled].float().reshape(-1, num_outputs).mean(dim=0)
            ratio = ((1 - rate) / rate).clamp(1 / max_weight, max_weight)
        self.register_buffer("pos_weight", ratio, persistent=False)
        self.optimizer = torch.optim.AdamW(self.linear.parameters(), lr=lr, weight_decay=0.0)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, num_outputs] in float32; the features are detached, whatever the caller passes."""
        with torch.autocast(features.device.type, enabled=False):
            return self.linear(features.detach().float())

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the labelled rows, 0 without any: weighted BCE or, multi-class, cross-entropy."""
        labelled = labelled_rows(labels)
        logits = self(features)
        if self.task == "multiclass":
            rows = F.cross_entropy(logits, labels.clamp_min(0), reduction="none")
        else:
            target = labels.clamp_min(0).to(logits.dtype).reshape(logits.shape)
            rows = F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.pos_weight, reduction="none")
            rows = rows.mean(dim=1)
        # A mask, not an index, which would wait for the device.
        return (rows * labelled).sum() / labelled.sum().clamp_min(1)

    def step(self, features: Tensor, labels: Tensor) -> Tensor:
        """One step of the probe's own optimizer on features [B, D]; a batch without labels makes none.

        Returns:
            The loss before the step, a detached scalar tensor on the device.
        """
        with torch.enable_grad():
            loss = self.loss(features, labels)
        # Waits for the device only in data with hidden labels.
        if self.all_labelled or bool(labelled_rows(labels).any()):
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def scores(self, features: Tensor) -> Floats:
        """Probabilities [B] (binary), [B, K] or [B, L] as numpy."""
        return _probabilities(self(features), self.task)

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's state travels in `state_dict()`."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Called by `load_state_dict`; a copy, so that two probes never share moments."""
        self.optimizer.load_state_dict(copy.deepcopy(state))


def _mean_loss(logits: Tensor, y: Tensor, task: Task) -> Tensor:
    if task == "multiclass":
        return F.cross_entropy(logits, y, reduction="none").mean()
    return F.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(dim=1).mean()


def sgd_probe(
    train: Features, val: Features, *, task: Task, config: ProbeConfig = ProbeConfig(), num_outputs: int | None = None
) -> list[dict[str, float]]:
    """The probe curve: one linear layer trained by SGD (momentum .9, cosine to 0) on standardised features.

    Returns:
        A row per epoch: `epoch` (from 1), `lr`, `train_loss` (mean over the epoch), `val_loss`, `val_auc`,
        `val_accuracy`. Losses are sums over the outputs of a row, without class weights.
    Raises:
        ValueError: a split with a single class.
    """
    splits = {"train": train.labelled(), "val": val.labelled()}
    for name, split in splits.items():
        check_both_classes(name, split)
    train, val = splits.values()
    outputs = num_outputs or count_outputs(task, train, val)
    mean, std = standardisation(train.x)
    x, x_val = (torch.as_tensor((s.x - mean) / std, dtype=torch.float32) for s in (train, val))
    y, y_val = (torch.as_tensor(targets(s.labels, task, outputs), dtype=torch.float32) for s in (train, val))
    layer = nn.Linear(x.shape[1], outputs)
    nn.utils.vector_to_parameters(torch.zeros((x.shape[1] + 1) * outputs), layer.parameters())
    optimizer = torch.optim.SGD(layer.parameters(), lr=config.sgd_lr, momentum=0.9)
    generator = torch.Generator().manual_seed(config.seed)
    total_steps = config.sgd_epochs * -(-len(x) // config.sgd_batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)
    history = []
    for epoch in range(1, config.sgd_epochs + 1):
        row = {"epoch": float(epoch), "lr": float(schedule.get_last_lr()[0]), "train_loss": 0.0}
        for rows in torch.randperm(len(x), generator=generator).split(config.sgd_batch_size):
            loss = _mean_loss(layer(x[rows]), y[rows], task)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            row["train_loss"] += loss.item() * len(rows)
        row["train_loss"] /= len(x)
        with torch.no_grad():
            logits = layer(x_val)
        scores = _probabilities(logits, task)
        row |= {"val_loss": float(_mean_loss(logits, y_val, task)), "val_auc": auc_score(val.labels, scores)}
        history.append(row | {"val_accuracy": accuracy(val.labels, scores)})
    return history


@torch.inference_mode()
def knn_probe(
    train: Features,
    query: Features,
    *,
    task: Task,
    k: int = 20,
    temperature: float = 0.07,
    num_outputs: int | None = None,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Scores by the k train rows of largest cosine similarity, their votes weighted by exp(similarity / T).

    Args:
        train: the bank; rows without a label are dropped.
        query: rows to score; its labels only tell the number of classes when `num_outputs` is None.
        task: binary and multi-label average the neighbours' labels, multi-class their one-hot rows.
        k: neighbours, at most the bank.
    Returns:
        [N] (binary), [N, K] or [N, L], in [0, 1]. Source: Wu et al. 2018 (arXiv 1805.01978).
    """
    bank = train.labelled()
    if len(bank) == 0:
        raise ValueError("knn_probe needs labelled train rows, got none: keep more labels")
    columns = targets(bank.labels, task, num_outputs or count_outputs(task, bank, query))
    votes = torch.as_tensor(columns, dtype=torch.float32, device=device)
    keys = F.normalize(torch.as_tensor(bank.x, device=device), dim=1)
    scores = []
    for rows in torch.as_tensor(query.x, device=device).split(1024):
        similarity = F.normalize(rows, dim=1) @ keys.T  # [B, N]
        near = similarity.topk(min(k, len(bank)), dim=1)
        weights = (near.values / temperature).softmax(dim=1)  # the exponentials over their sum, without overflow
        scores.append(torch.einsum("bk,bkl->bl", weights, votes[near.indices]))
    result = torch.cat(scores).clamp(0, 1).cpu().numpy()
    return result[:, 0] if task == "binary" else result
