"""Metrics of predictions and of representations: pure functions of numpy arrays, without torch.

Scores are probabilities: binary `[N]` (of class 1), multi-class `[N, K]`, multi-label `[N, L]`; labels are integers
`[N]`, `[N]`, `[N, L]`, without rows that have none. Macro: the mean over the labels or classes that have both sides.
Weights `[R, N]` are R weightings of the same images: a weight k equals k copies, as in a bootstrap resample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist
from scipy.stats import entropy, rankdata
from sklearn.metrics import average_precision_score, recall_score, roc_curve

if TYPE_CHECKING:
    from ..data import Task

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
NUM_BINS = 15  # of equal width, of the calibration error and the reliability diagram
Z = 1.959964  # normal quantile of a two-sided 95 % interval


def one_vs_rest(labels: ArrayLike, scores: ArrayLike) -> tuple[Bools, Floats]:
    """Any task as columns of binary questions: positives [N, L] and scores [N, L]; what fits no task is refused."""
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    fits = 0 < y.ndim <= s.ndim <= 2 and (y.shape == s.shape or y.ndim < s.ndim)
    if not fits or len(y) != len(s) or len(y) == 0:
        raise ValueError(
            "labels and scores must be [N] and [N], [N] and [N, K], or [N, L] and [N, L] with N above 0, "
            f"got {list(y.shape)} and {list(s.shape)}"
        )
    if bad := int((~np.isfinite(s)).sum()):
        raise ValueError(f"scores must be finite, got {bad} that are not: has training diverged?")
    most = s.shape[1] - 1 if y.ndim < s.ndim else 1
    if y.min() < 0 or y.max() > most:
        raise ValueError(f"labels must be 0 to {most}, got {y.min()} to {y.max()}: remove rows without a label")
    if y.ndim < s.ndim:
        return y[:, None] == np.arange(most + 1), s
    return y.reshape(len(y), -1) == 1, s.reshape(len(s), -1)


def columns(labels: ArrayLike, scores: ArrayLike) -> Iterator[tuple[Bools, Floats]]:
    """The binary questions of `one_vs_rest` one by one: positives [N] and scores [N]."""
    positive, s = one_vs_rest(labels, scores)
    return zip(positive.T, s.T, strict=True)


# ---- discrimination


def weighted_auc(positive: Bools, scores: Floats, weights: NDArray[Any]) -> Floats:
    """AUC [R] of one binary question [N] of weighted images; ties count one half, one class alone gives nan.

    Images are taken in the order of their scores, all R weightings at once: fast where `weights.T` is contiguous.
    """
    w, ours, others = weights.T, np.flatnonzero(positive), np.flatnonzero(~positive)
    others = others[np.argsort(scores[others], kind="stable")]
    places = np.concatenate([np.searchsorted(scores[others], scores[ours], side) for side in ("left", "right")])
    order = np.argsort(places, kind="stable")
    cuts, starts = np.unique(places[order], return_index=True)
    below, wins, done = np.zeros(w.shape[1]), np.zeros(w.shape[1]), 0
    for cut, rows in zip(cuts, np.split(np.tile(ours, 2)[order], starts[1:]), strict=False):  # no cut: no positive
        below += w[others[done:cut]].sum(axis=0)  # of the others below this place; exact for integers
        wins += below * w[rows].sum(axis=0)  # every won pair comes twice, a tie once
        done = cut
    pairs = 2.0 * w[ours].sum(axis=0) * w[others].sum(axis=0)
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def label_aucs(labels: ArrayLike, scores: ArrayLike, weights: NDArray[Any]) -> Floats:
    """ROC-AUC [R, L] of each label, or of each class against the rest, of weighted images; nan without both sides."""
    return np.stack([weighted_auc(p, s, weights) for p, s in columns(labels, scores)]).T


def weighted_macro_auc(labels: ArrayLike, scores: ArrayLike, weights: NDArray[Any]) -> Floats:
    """Macro AUC [R] of weighted images, over the labels with both classes in a resample; nan without any."""
    aucs = label_aucs(labels, scores, weights)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(aucs, axis=1) / np.isfinite(aucs).sum(axis=1))


def per_label_auc(labels: ArrayLike, scores: ArrayLike) -> Floats:
    """ROC-AUC [L] of each label, or of each class against the rest; nan without both sides."""
    return np.array([_rank_auc(p, s) for p, s in columns(labels, scores)])


def _rank_auc(positive: Bools, scores: Floats) -> float:
    """`weighted_auc` of images that count once each, from the sum of the positives' ranks."""
    ours, others = int(positive.sum()), int((~positive).sum())
    wins = float(2 * rankdata(scores)[positive].sum()) - ours * (ours + 1)  # a multiple of 1, exact
    return wins / (2.0 * ours * others) if ours and others else float("nan")


def macro(values: Floats, labels: ArrayLike) -> float:
    """Mean of the values that are not nan; a ValueError that shows the labels where there is none."""
    if np.isnan(values).all():
        present = ", ".join(str(v) for v in np.unique(np.asarray(labels)))
        raise ValueError(f"AUC needs both classes among the labels, got only {present}: use a split with both")
    return float(np.nanmean(values))


def auc_score(labels: ArrayLike, scores: ArrayLike) -> float:
    """Macro ROC-AUC; a ValueError where no label has both classes."""
    return macro(per_label_auc(labels, scores), labels)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Macro average precision; a ValueError where no label has both classes."""
    pairs = columns(labels, scores)
    return macro(np.array([average_precision_score(p, s) if p.min() < p.max() else np.nan for p, s in pairs]), labels)


# ---- decisions


def _decisions(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels and decisions of one shape: the largest score, or scores above .5 (as MedMNIST does)."""
    y, s = np.asarray(labels), np.asarray(scores)
    return y, s.argmax(axis=1) if s.ndim > y.ndim else (s > 0.5).astype(y.dtype)


def weighted_accuracy(labels: ArrayLike, scores: ArrayLike, weights: NDArray[Any]) -> Floats:
    """Part [R] of the decisions on weighted images that are right: argmax for multi-class, else at .5."""
    y, decided = _decisions(labels, scores)
    per_image = (y == decided).reshape(len(y), -1).mean(axis=1)
    return np.asarray(weights @ per_image / weights.sum(axis=1))


def accuracy(labels: ArrayLike, scores: ArrayLike) -> float:
    """`weighted_accuracy` of the images as they are."""
    one_vs_rest(labels, scores)  # checks
    return float(weighted_accuracy(labels, scores, np.ones((1, np.shape(scores)[0])))[0])


def threshold_from(labels: ArrayLike, scores: ArrayLike) -> Floats:
    """Threshold [L] of each label with the largest Youden's J = sensitivity + specificity - 1; choose it on val.

    Midway between the lowest score called positive (`score >= threshold`) and the highest called negative; of equal J
    the highest; nan where a class is missing.
    """
    return np.array([_youden(p, s) for p, s in columns(labels, scores)])


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
    """Macro sensitivity and specificity at thresholds (scalar or [L]) of another split; nan leaves a label out."""
    positive, s = one_vs_rest(labels, scores)
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), s.shape[1:])
    called = s >= limits
    usable = positive.any(axis=0) & ~positive.all(axis=0) & np.isfinite(limits)
    if not usable.any():
        return float("nan"), float("nan")
    p, c = positive[:, usable], called[:, usable]
    sensitivity, specificity = ((a & b).sum(axis=0) / a.sum(axis=0) for a, b in ((p, c), (~p, ~c)))
    return float(sensitivity.mean()), float(specificity.mean())


def classification_metrics(
    task: Task, labels: ArrayLike, scores: ArrayLike, *, threshold: ArrayLike | None = None
) -> dict[str, float]:
    """Every metric of one split's predictions; a ValueError where no label has both classes.

    Args:
        threshold: scalar or [L], chosen on val by `threshold_from`; not used for multi-class.
    Returns:
        `auc`, `average_precision` (macro), `accuracy`, `balanced_accuracy` (decisions at .5, or argmax), `ece`,
        `num_images`, `num_labels_skipped` (not in the macro means); and with a threshold `sensitivity` and
        `specificity`. AUC and accuracy are MedMNIST's AUC and ACC.
    """
    aucs = per_label_auc(labels, scores)
    y, decided = (of.reshape(len(of), -1).T for of in _decisions(labels, scores))
    recalls = [
        recall_score(a, b, labels=np.unique(a), average="macro") for a, b in zip(y, decided, strict=True) if np.ptp(a)
    ]
    row = {
        "auc": macro(aucs, labels),
        "average_precision": average_precision(labels, scores),
        "accuracy": accuracy(labels, scores),
        "balanced_accuracy": float(np.mean(recalls)),
        "ece": expected_calibration_error(labels, scores),
        "num_images": float(np.shape(scores)[0]),
        "num_labels_skipped": float(np.isnan(aucs).sum()),
    }
    if threshold is not None and task != "multiclass":
        row["sensitivity"], row["specificity"] = sensitivity_and_specificity(labels, scores, threshold)
    return row


# ---- calibration


def expected_calibration_error(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean gap between probability and frequency over 15 bins of equal width, weighted by the bins' images.

    Binary and multi-label: probability of class 1 against its frequency (mean over labels). Multi-class:
    probability of the chosen class against accuracy, as in Guo et al. 2017 (arXiv 1706.04599).
    """
    positive, s = one_vs_rest(labels, scores)
    if np.ndim(labels) < np.ndim(scores):
        chosen = s.argmax(axis=1)[:, None]
        positive, s = np.take_along_axis(positive, chosen, 1), np.take_along_axis(s, chosen, 1)
    bins = np.minimum((s * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = [np.bincount(b, gap, NUM_BINS) for b, gap in zip(bins.T, (positive - s).T, strict=True)]
    return float(np.mean([np.abs(gap).sum() / len(s) for gap in gaps]))


def reliability(labels: ArrayLike, stack: ArrayLike, groups: ArrayLike | None = None) -> pd.DataFrame:
    """The reliability diagram: how often a probability comes true, bin by bin, seeds and labels pooled.

    Args:
        labels: [N] or [N, L].
        stack: probabilities [S, N] or [S, N, L], one per training seed.
        groups: patients [N]; None counts images.
    Returns:
        A row per bin that holds a decision: its mean `probability`; `frequency`, the part that is positive, with its
        interval `low, high` (Wilson 1927, 10.1080/01621459.1927.10502953); `count`, decisions, mean over seeds;
        `units`, patients under any seed: at best independent draws, on which the interval rests.
    """
    y, s = np.asarray(labels), np.asarray(stack, dtype=np.float64)
    patients = np.arange(len(y)) if groups is None else np.asarray(groups)
    patients = patients.reshape(-1, *[1] * (y.ndim - 1))  # [N] or [N, 1]
    parts = {"probability": s, "frequency": y == 1, "count": s, "units": patients}
    decisions = pd.DataFrame({name: np.broadcast_to(part, s.shape).ravel() for name, part in parts.items()})
    how: dict[str, Any] = {"probability": "mean", "frequency": "mean", "count": "size", "units": "nunique"}
    table = decisions.groupby(np.minimum((s.ravel() * NUM_BINS).astype(int), NUM_BINS - 1)).agg(how)
    p, n = table["frequency"], table["units"]
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    table = table.assign(low=(centre - half).clip(0, p), high=(centre + half).clip(p, 1))
    return table.assign(count=table["count"] / len(s)).reset_index(drop=True)


# ---- representations


def _unit_rows(h: ArrayLike) -> Floats:
    x = np.asarray(h, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def feature_std(h: ArrayLike) -> float:
    """Mean standard deviation per dimension of the l2-normalised rows, times sqrt(D): 0 collapsed, 1 isotropic.

    Below 1 after a ReLU, for the mean is not 0. Source: SimSiam (arXiv 2011.10566), its 1/sqrt(D) scaled to 1.
    """
    x = _unit_rows(h)
    return float(x.std(axis=0).mean() * np.sqrt(x.shape[1]))


def projection_std(z: ArrayLike) -> float:
    """Mean standard deviation per dimension of raw projections, which VICReg pushes up to 1."""
    return float(np.asarray(z, dtype=np.float64).std(axis=0, ddof=1).mean())


def effective_rank(h: ArrayLike) -> float:
    """exp of the entropy of the normalised singular values of the centred matrix: 1 to min(N - 1, D).

    0 for constant rows. Source: Roy & Vetterli 2007 (10.5281/zenodo.40627).
    """
    x = np.asarray(h, dtype=np.float64)
    s = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    constant = s[0] <= np.finfo(np.float64).eps * max(x.shape) * np.linalg.norm(x)
    return 0.0 if constant else float(np.exp(entropy(s)))


def alignment(z_a: ArrayLike, z_b: ArrayLike) -> float:
    """Mean squared distance of the l2-normalised views of an image: 0 (equal) to 4. arXiv 2005.10242."""
    return float(np.square(_unit_rows(z_a) - _unit_rows(z_b)).sum(axis=1).mean())


def uniformity(z: ArrayLike) -> float:
    """log of the mean of exp(-2 d^2) over pairs of unit rows: 0 collapsed, -4 spread. arXiv 2005.10242."""
    return float(np.log(np.exp(-2 * pdist(_unit_rows(z), "sqeuclidean")).mean()))
