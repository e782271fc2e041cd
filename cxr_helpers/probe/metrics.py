"""Metrics of predictions and of representations: pure functions of numpy arrays.

Scores are probabilities: binary `[N]` (of class 1), multi-class `[N, K]`, multi-label `[N, L]`; labels are
integers `[N]`, `[N]`, `[N, L]`. Rows without a label have been removed before. Intervals are in `bootstrap`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_curve

if TYPE_CHECKING:  # a name for mypy only: this module needs no torch
    from ..data import Task

__all__ = [
    "accuracy",
    "alignment",
    "auc_score",
    "average_precision",
    "classification_metrics",
    "effective_rank",
    "expected_calibration_error",
    "feature_std",
    "medmnist_scores",
    "one_vs_rest",
    "per_label_auc",
    "projection_std",
    "sensitivity_and_specificity",
    "threshold_from",
    "uniformity",
    "weighted_auc",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


# ---- discrimination


def one_vs_rest(labels: ArrayLike, scores: ArrayLike) -> tuple[Bools, Floats]:
    """Any task as columns of binary questions: positives [N, L] and scores [N, L].

    Raises:
        ValueError: shapes that fit no task, no rows, labels outside the columns, scores that are not finite.
    """
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    fits = 0 < y.ndim <= s.ndim <= 2 and (y.shape == s.shape or y.ndim < s.ndim)
    if not fits or len(y) != len(s) or len(y) == 0:
        raise ValueError(
            "labels and scores must be [N] and [N], [N] and [N, K], or [N, L] and [N, L] with N above 0, "
            f"got {list(y.shape)} and {list(s.shape)}"
        )
    if not np.isfinite(s).all():
        bad = int((~np.isfinite(s)).sum())
        raise ValueError(f"scores must be finite, got {bad} that are not: has training diverged?")
    num_classes = s.shape[1] if y.ndim < s.ndim else 2
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"labels must be 0 to {num_classes - 1}, got {y.min()} to {y.max()}: remove rows without a label"
        )
    if y.ndim == 1 and s.ndim == 2:
        return y[:, None] == np.arange(num_classes), s
    return y.reshape(len(y), -1) == 1, s.reshape(len(s), -1)


def weighted_auc(positive: Bools, scores: Floats, weights: NDArray[Any]) -> Floats:
    """AUC of one binary question under many weightings of the same images; ties count one half.

    A weight k equals k copies of the image, so integer weights are a bootstrap resample without the copying.

    Args:
        positive: bool [N].
        scores: [N].
        weights: [R, N], 0 or more.
    Returns:
        [R]; nan where a weighting holds only one class.
    """
    order = np.argsort(scores[~positive], kind="stable")
    negative_scores = scores[~positive][order]
    negative = weights[:, np.flatnonzero(~positive)[order]]
    below = np.zeros((len(weights), len(order) + 1))
    np.cumsum(negative, axis=1, out=below[:, 1:])  # of the negatives below each rank; exact for integers
    ours = weights[:, positive].astype(np.float64)
    first = np.searchsorted(negative_scores, scores[positive], side="left")
    last = np.searchsorted(negative_scores, scores[positive], side="right")
    wins = np.einsum("rp,rp->r", ours, below[:, first] + below[:, last])  # twice the won pairs
    pairs = 2.0 * ours.sum(axis=1) * below[:, -1]
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def per_label_auc(labels: ArrayLike, scores: ArrayLike) -> Floats:
    """ROC-AUC of each label, or of each class against the rest: [L], nan where a class is missing."""
    positive, s = one_vs_rest(labels, scores)
    once = np.ones((1, len(s)))
    return np.array([weighted_auc(p, q, once)[0] for p, q in zip(positive.T, s.T, strict=True)])


def auc_score(labels: ArrayLike, scores: ArrayLike) -> float:
    """Macro ROC-AUC over the labels that have both classes; `per_label_auc` is nan for the ones skipped.

    Raises:
        ValueError: no label has both classes.
    """
    return _macro(per_label_auc(labels, scores), labels)


def _macro(values: Floats, labels: ArrayLike) -> float:
    if np.isnan(values).all():
        present = ", ".join(str(v) for v in np.unique(np.asarray(labels)))
        raise ValueError(f"AUC needs both classes among the labels, got only {present}: use a split with both")
    return float(np.nanmean(values))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision, macro over the labels (or classes) that have both classes.

    Raises:
        ValueError: no label has both classes.
    """
    positive, s = one_vs_rest(labels, scores)
    both = positive.any(axis=0) & ~positive.all(axis=0)
    values = np.full(s.shape[1], np.nan)
    for i in np.flatnonzero(both):
        values[i] = average_precision_score(positive[:, i], s[:, i])
    return _macro(values, labels)


# ---- decisions


def _decisions(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels and decisions of one shape: the largest score, or scores above .5 (as MedMNIST does)."""
    one_vs_rest(labels, scores)  # checks
    y, s = np.asarray(labels), np.asarray(scores)
    return y, s.argmax(axis=1) if s.ndim > y.ndim else (s > 0.5).astype(y.dtype)


def accuracy(labels: ArrayLike, scores: ArrayLike) -> float:
    """Part of the decisions that are right: argmax for multi-class, else at .5 (mean over labels)."""
    y, decided = _decisions(labels, scores)
    return float((y == decided).mean())


def _balanced_accuracy(y: NDArray[Any], decided: NDArray[Any]) -> float:
    if y.ndim == 1:
        return float(np.mean([(decided[y == k] == k).mean() for k in np.unique(y)]))
    return float(np.mean([_balanced_accuracy(a, b) for a, b in zip(y.T, decided.T, strict=True) if np.ptp(a) > 0]))


def threshold_from(labels: ArrayLike, scores: ArrayLike) -> Floats:
    """Threshold of each label with the largest Youden's J = sensitivity + specificity - 1; choose it on val.

    Midway between the lowest score called positive and the highest called negative; of equal J the highest.

    Returns:
        [L] ([1] for binary), nan where a class is missing; called positive is `score >= threshold`.
    """
    positive, s = one_vs_rest(labels, scores)
    return np.array([_youden(p, q) for p, q in zip(positive.T, s.T, strict=True)])


def _youden(positive: Bools, scores: Floats) -> float:
    if positive.all() or not positive.any():
        return float("nan")
    false_rate, true_rate, thresholds = roc_curve(positive, scores, drop_intermediate=False)
    lowest = thresholds[np.argmax(true_rate - false_rate)]
    if not np.isfinite(lowest):  # J is never above 0: call nothing positive
        return float(np.nextafter(scores.max(), np.inf))
    rest = scores[scores < lowest]
    return float((lowest + rest.max()) / 2) if len(rest) else float(lowest)


def sensitivity_and_specificity(labels: ArrayLike, scores: ArrayLike, threshold: ArrayLike) -> tuple[float, float]:
    """Sensitivity and specificity at given thresholds, macro over labels with both classes and a threshold.

    Args:
        threshold: scalar or [L], as `threshold_from` gives it for another split.
    """
    positive, s = one_vs_rest(labels, scores)
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), s.shape[1:])
    called = s >= limits
    usable = positive.any(axis=0) & ~positive.all(axis=0) & np.isfinite(limits)
    if not usable.any():
        return float("nan"), float("nan")
    p, c = positive[:, usable], called[:, usable]
    sensitivity = (p & c).sum(axis=0) / p.sum(axis=0)
    specificity = (~p & ~c).sum(axis=0) / (~p).sum(axis=0)
    return float(sensitivity.mean()), float(specificity.mean())


def expected_calibration_error(labels: ArrayLike, scores: ArrayLike, *, num_bins: int = 15) -> float:
    """Mean gap between probability and frequency over equal-width bins, weighted by the bins' images.

    Binary and multi-label: probability of class 1 against its frequency (mean over labels). Multi-class:
    probability of the chosen class against accuracy, as in Guo et al. 2017 (arXiv 1706.04599).
    """
    positive, s = one_vs_rest(labels, scores)
    if np.ndim(labels) < np.ndim(scores):
        chosen = s.argmax(axis=1)[:, None]
        positive, s = np.take_along_axis(positive, chosen, 1), np.take_along_axis(s, chosen, 1)
    bins = np.minimum((s * num_bins).astype(int), num_bins - 1)
    gaps = [
        np.abs(np.bincount(bins[:, i], weights=positive[:, i] - s[:, i], minlength=num_bins)).sum() / len(s)
        for i in range(s.shape[1])
    ]
    return float(np.mean(gaps))


def medmnist_scores(task: Task, labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """AUC and ACC by MedMNIST's own evaluator; AUC is nan where a label lacks one of its classes."""
    from medmnist.evaluator import getACC, getAUC  # imported here: medmnist imports torch

    positive, _ = one_vs_rest(labels, scores)
    names = {"binary": "binary-class", "multiclass": "multi-class", "multilabel": "multi-label, binary-class"}
    name = names[task] if positive.shape[1] > 1 else names["binary"]  # its squeeze() drops a single column
    y, s = np.asarray(labels), np.asarray(scores)
    both = bool((positive.any(axis=0) & ~positive.all(axis=0)).all())
    return float(getAUC(y, s, name)) if both else float("nan"), float(getACC(y, s, name))


def classification_metrics(
    task: Task, labels: ArrayLike, scores: ArrayLike, *, threshold: ArrayLike | None = None
) -> dict[str, float]:
    """Every metric of one split's predictions.

    Args:
        task: binary, multiclass or multilabel.
        labels, scores: as the module says.
        threshold: scalar or [L], chosen on val by `threshold_from`; not used for multi-class.
    Returns:
        `auc`, `average_precision` (macro), `accuracy`, `balanced_accuracy`, `weighted_f1` (decisions at .5,
        or argmax), `ece`, `medmnist_auc`, `medmnist_acc`, `num_images`, `num_labels_skipped` (without both
        classes, so not in the macro means); and with a threshold `sensitivity`, `specificity`,
        `balanced_accuracy_at_threshold`.
    Raises:
        ValueError: no label has both classes.
    """
    aucs = per_label_auc(labels, scores)
    y, decided = _decisions(labels, scores)
    medmnist_auc, medmnist_acc = medmnist_scores(task, labels, scores)
    row = {
        "auc": _macro(aucs, labels),
        "average_precision": average_precision(labels, scores),
        "accuracy": accuracy(labels, scores),
        "balanced_accuracy": _balanced_accuracy(y, decided),
        "weighted_f1": float(f1_score(y, decided, average="weighted", zero_division=0)),
        "ece": expected_calibration_error(labels, scores),
        "medmnist_auc": medmnist_auc,
        "medmnist_acc": medmnist_acc,
        "num_images": float(len(y)),
        "num_labels_skipped": float(np.isnan(aucs).sum()),
    }
    if threshold is not None and task != "multiclass":
        sensitivity, specificity = sensitivity_and_specificity(labels, scores, threshold)
        row |= {"sensitivity": sensitivity, "specificity": specificity}
        row["balanced_accuracy_at_threshold"] = (sensitivity + specificity) / 2
    return row


# ---- representations: rows are images, all in float64


def _unit_rows(h: ArrayLike) -> Floats:
    x = np.asarray(h, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def feature_std(h: ArrayLike) -> float:
    """Mean standard deviation per dimension of the l2-normalised rows, times sqrt(D).

    0 is collapsed, 1 is isotropic around 0; features after a ReLU stay below 1 because their mean is not 0.

    Source: the collapse measure of SimSiam (arXiv 2011.10566, its 1/sqrt(D) scaled to 1).
    """
    x = _unit_rows(h)
    return float(x.std(axis=0).mean() * np.sqrt(x.shape[1]))


def projection_std(z: ArrayLike) -> float:
    """Mean standard deviation per dimension of raw projections, which VICReg pushes up to 1."""
    return float(np.asarray(z, dtype=np.float64).std(axis=0, ddof=1).mean())


def effective_rank(h: ArrayLike) -> float:
    """exp of the entropy of the normalised singular values of the centred matrix [N, D]: 1 to min(N - 1, D).

    0 for constant rows. Source: Roy & Vetterli 2007 (10.5281/zenodo.40627).
    """
    x = np.asarray(h, dtype=np.float64)
    s = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    if s[0] <= np.finfo(np.float64).eps * max(x.shape) * np.linalg.norm(x):
        return 0.0
    p = s / s.sum()
    return float(np.exp(-np.sum(p * np.log(p, where=p > 0, out=np.zeros_like(p)))))


def alignment(z_a: ArrayLike, z_b: ArrayLike) -> float:
    """Mean squared distance of the l2-normalised views of an image: 0 (equal) to 4. arXiv 2005.10242."""
    return float(np.square(_unit_rows(z_a) - _unit_rows(z_b)).sum(axis=1).mean())


def uniformity(z: ArrayLike) -> float:
    """log of the mean of exp(-2 d^2) over pairs of unit rows: 0 collapsed, -4 spread. arXiv 2005.10242."""
    x = _unit_rows(z)
    if len(x) < 2:
        raise ValueError(f"uniformity needs at least 2 rows, got {len(x)}")
    total = sum(np.exp(4 * (np.minimum(x[i : i + 1024] @ x.T, 1.0) - 1)).sum() for i in range(0, len(x), 1024))
    own = np.exp(4 * (np.minimum(np.einsum("nd,nd->n", x, x), 1.0) - 1)).sum()
    return float(np.log((total - own) / (len(x) * (len(x) - 1))))
