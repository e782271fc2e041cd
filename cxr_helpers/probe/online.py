"""Probes without an exact solution: the online probe of pretraining, and nearest neighbours.

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

from .features import Features, labelled_rows
from .linear import targets
from .metrics import Floats

if TYPE_CHECKING:
    from ..data import Task

MAX_WEIGHT = 10.0  # cap of the class weights, and 1 / 10 their floor


class OnlineProbe(nn.Module):
    """One linear layer beside pretraining, with its own AdamW, on detached features in float32.

    num_outputs: 1 (binary), number of classes, or number of labels.
    train_labels: int [N] or [N, L], -1 = not labelled; class weights negatives / positives come from it.
    """

    pos_weight: Tensor

    def __init__(
        self, feature_dim: int, task: Task, num_outputs: int, train_labels: Tensor, *, lr: float = 1e-3
    ) -> None:
        super().__init__()
        self.task = task
        self.linear = nn.Linear(feature_dim, num_outputs)
        labelled = labelled_rows(train_labels)
        self.all_labelled = bool(labelled.all())
        ratio = torch.ones(num_outputs)
        if task != "multiclass" and bool(labelled.any()):
            rate = train_labels[labelled].float().reshape(-1, num_outputs).mean(dim=0)
            ratio = ((1 - rate) / rate).clamp(1 / MAX_WEIGHT, MAX_WEIGHT)
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
        logits = self(features)
        scores = logits.softmax(dim=1) if self.task == "multiclass" else logits.sigmoid()
        return (scores.squeeze(1) if self.task == "binary" else scores).double().cpu().numpy()

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's state travels in `state_dict()`."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Called by `load_state_dict`; a copy, so that two probes never share moments."""
        self.optimizer.load_state_dict(copy.deepcopy(state))


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
        query: rows to score.
        k: neighbours, at most the bank.
        num_outputs: classes of a multi-class task; None takes those of the bank.
    Returns:
        [N] (binary), [N, K] or [N, L], in [0, 1]. Source: Wu et al. 2018 (arXiv 1805.01978).
    """
    bank = train.labelled()
    if len(bank) == 0:
        raise ValueError("knn_probe needs labelled train rows, got none: keep more labels")
    votes = torch.as_tensor(targets(bank.labels, task, num_outputs), dtype=torch.float32, device=device)
    keys = F.normalize(torch.as_tensor(bank.x, device=device), dim=1)
    scores = []
    for rows in torch.as_tensor(query.x, device=device).split(1024):
        similarity = F.normalize(rows, dim=1) @ keys.T  # [B, N]
        near = similarity.topk(min(k, len(bank)), dim=1)
        weights = (near.values / temperature).softmax(dim=1)  # the exponentials over their sum, without overflow
        scores.append(torch.einsum("bk,bkl->bl", weights, votes[near.indices]))
    result = torch.cat(scores).clamp(0, 1).cpu().numpy()
    return result[:, 0] if task == "binary" else result
