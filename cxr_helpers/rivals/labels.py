"""Shuffled labels: what the probe reaches with nothing to learn, and what choosing among tries adds to that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..probe import Features, fit_head, predict, targets

if TYPE_CHECKING:
    from ..data import Task

__all__ = ["permuted_labels", "shuffled_scores"]


def permuted_labels(
    labels: NDArray[np.int64], groups: NDArray[np.str_] | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The same labels on other images, whole rows and patient by patient.

    Patients whose images all have one label swap labels whole, so that images of a patient agree as they did: probes
    fitted on labels permuted by image vary less than a probe fitted by patient does. Where a patient has images of
    several labels, rows are laid out patient by patient and taken by the patients in another order: counts are exact
    and most of a patient's labels stay together.

    Args:
        labels: [N], or [N, L] with several labels.
        groups: the patient of each image; None permutes images.
    """
    if groups is None:
        return rng.permutation(labels, axis=0)
    _, first, patient = np.unique(groups, return_index=True, return_inverse=True)
    if np.array_equal(labels[first][patient], labels):
        return rng.permutation(labels[first], axis=0)[patient]
    given, taken = (np.argsort(rng.permutation(len(first))[patient], kind="stable") for _ in range(2))
    moved = np.empty_like(labels)
    moved[taken] = labels[given]
    return moved


def shuffled_scores(
    train: Features, queries: list[Features], *, task: Task, num_outputs: int, c: float, draws: int, max_iter: int
) -> list[NDArray[np.float64]]:
    """Scores of probes fitted on permuted train labels, one fit of all draws at once: their losses add up.

    Args:
        train: labelled features.
        queries: features to score.
        c: of the probe that the draws are compared with; nothing is chosen here.
        draws: permutations, seeded by their number.
    Returns:
        For each query [draws, N], or [draws, N, K] with several outputs.
    """
    permuted = [permuted_labels(train.labels, train.groups, np.random.default_rng(draw)) for draw in range(draws)]
    if task == "multiclass":  # one softmax each, which do not add up
        heads = [fit_head(train.x, y, task=task, num_outputs=num_outputs, c=c, max_iter=max_iter) for y in permuted]
        return [np.stack([predict(head.logits(query.x), task) for head in heads]) for query in queries]
    y = np.concatenate([targets(one, task, num_outputs) for one in permuted], axis=1).astype(np.int64)
    head = fit_head(train.x, y, task="multilabel", num_outputs=y.shape[1], c=c, max_iter=max_iter)
    scores = [predict(head.logits(query.x), "multilabel").reshape(len(query), draws, num_outputs) for query in queries]
    return [np.moveaxis(one, 1, 0)[..., 0] if task == "binary" else np.moveaxis(one, 1, 0) for one in scores]
