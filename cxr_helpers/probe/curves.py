"""Curves of predictions under many weightings of the same images: ROC, precision-recall, decisions, reliability.

The curves take weights `[R, N]` (see `metrics.weighted_auc`) and are meant for `intervals.bootstrap_band`. With several
labels a curve is the mean of the labels' curves at equal abscissa, so that the area under it is the macro figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from .metrics import Bools, Floats, columns, expected_calibration_error, one_vs_rest

CURVE_GRID: Floats = np.linspace(0, 1, 201)  # of false-positive rate and of recall: steps half as wide as a line
DECISION_RATES = ("sensitivity", "specificity", "precision", "negative_predictive_value", "accuracy")


def _ranked(positive: Bools, scores: Floats, weights: NDArray[Any]) -> tuple[Floats, Floats]:
    """Weights [R, K] of positives and of negatives at or above each distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each group of ties
    w, p = weights[:, order].astype(np.float64), positive[order]
    return np.cumsum(w * p, axis=1)[:, last], np.cumsum(w * ~p, axis=1)[:, last]


def _mean_over_labels(
    one: Callable[[Floats, Floats], Floats], labels: NDArray[Any], scores: Floats, weights: NDArray[Any]
) -> Floats:
    """Mean [R, P] over the labels of what `one` makes of each; a label without both classes is left out."""
    total, count = np.zeros((len(weights), 1)), np.zeros((len(weights), 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        for question in columns(labels, scores):
            true, false = _ranked(*question, weights)
            both = (true[:, -1:] > 0) & (false[:, -1:] > 0)
            total = total + np.where(both, one(true, false), 0.0)
            count += both
        return np.asarray(total / count)


def _precision(true: Floats, false: Floats) -> Floats:
    called = true + false
    return np.divide(true, called, out=np.zeros_like(called), where=called > 0)


def roc_curves(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Sensitivity [R, 201] at the false-positive rates `CURVE_GRID`, linear between thresholds as the AUC is.

    Where the curve is vertical the higher value stands, at a rate of 0 too.
    """

    def one(true: Floats, false: Floats) -> Floats:
        x, y = false / false[:, -1:], true / true[:, -1:]
        # Of several y at one x np.interp takes the last, which is the highest.
        return np.array([np.interp(CURVE_GRID, np.append(0, a), np.append(0, b)) for a, b in zip(x, y, strict=True)])

    return _mean_over_labels(one, labels, scores, weights)


def precision_curves(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Precision [R, 201] at the recalls `CURVE_GRID`: of the highest threshold that reaches them, as in the AP."""

    def one(true: Floats, false: Floats) -> Floats:
        rows = []
        for recall, precision in zip(true / true[:, -1:], _precision(true, false), strict=True):
            first = np.searchsorted(recall, CURVE_GRID - 1e-12, side="left")
            first[0] = np.searchsorted(recall, 0, side="right")  # a recall of 0 needs a positive called, too
            rows.append(precision[np.minimum(first, len(precision) - 1)])
        return np.array(rows)

    return _mean_over_labels(one, labels, scores, weights)


def weighted_macro_average_precision(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Average precision [R] (the sum of precision times step of recall, as scikit-learn's), macro over labels."""

    def one(true: Floats, false: Floats) -> Floats:
        steps = np.diff(true, axis=1, prepend=0.0) / true[:, -1:]
        return np.asarray((_precision(true, false) * steps).sum(axis=1, keepdims=True))

    return _mean_over_labels(one, labels, scores, weights)[:, 0]


def decision_rates(threshold: ArrayLike) -> Callable[[NDArray[Any], Floats, NDArray[Any]], Floats]:
    """A curve for `bootstrap_band`: the five `DECISION_RATES` [R, 5] at thresholds (scalar or [L]) of another split.

    Called positive is `score >= threshold`; decisions of all labels are pooled, but of those whose threshold is nan.
    """

    def rates(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
        positive, s = one_vs_rest(labels, scores)
        limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), s.shape[1:])
        usable = np.isfinite(limits)
        p, called = positive[:, usable], s[:, usable] >= limits[usable]
        tp, fn, fp, tn = (weights @ cell.sum(axis=1) for cell in (p & called, p & ~called, ~p & called, ~p & ~called))
        pairs = ((tp, tp + fn), (tn, tn + fp), (tp, tp + fp), (tn, tn + fn), (tp + tn, tp + fn + fp + tn))
        with np.errstate(invalid="ignore"):
            return np.stack([a / b for a, b in pairs], axis=1)

    return rates


def weighted_means(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Mean of every column of scores [R, P]: for figures that each image has one of, such as a hit or an IoU."""
    return weights @ scores / weights.sum(axis=1, keepdims=True)


def _wilson(p: pd.Series, n: pd.Series, z: float = 1.959964) -> tuple[pd.Series, pd.Series]:
    """95 % interval of a share p of n units, not empty at 0 and 1 (Wilson 1927, 10.1080/01621459.1927.10502953)."""
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (centre - half).clip(0, p), (centre + half).clip(p, 1)


def reliability(
    labels: ArrayLike, stack: ArrayLike, groups: ArrayLike | None = None, *, num_bins: int = 15
) -> pd.DataFrame:
    """The reliability diagram: how often a probability comes true, bin by bin, seeds and labels pooled.

    Args:
        labels: [N] or [N, L].
        stack: probabilities [S, N] or [S, N, L], one per training seed.
        groups: patients [N]; None counts images.
        num_bins: of equal width, as in `expected_calibration_error`.
    Returns:
        A row per bin that holds a decision: its mean `probability`; `frequency`, the part that is positive, with its
        interval `low, high`; `count`, decisions, mean over seeds; `units`, patients under any seed: at best independent
        draws, on which the interval rests.
    """
    y, s = np.asarray(labels), np.asarray(stack, dtype=np.float64)
    patients = np.arange(len(y)) if groups is None else np.asarray(groups)
    patients = patients.reshape(-1, *[1] * (y.ndim - 1))  # [N] or [N, 1]
    parts = {"probability": s, "frequency": y == 1, "count": s, "units": patients}
    decisions = pd.DataFrame({name: np.broadcast_to(part, s.shape).ravel() for name, part in parts.items()})
    bins = np.minimum((s * num_bins).astype(int), num_bins - 1).ravel()
    how: dict[str, Any] = {"probability": "mean", "frequency": "mean", "count": "size", "units": "nunique"}
    table = decisions.groupby(bins).agg(how)
    low, high = _wilson(table["frequency"], table["units"])
    return table.assign(low=low, high=high, count=table["count"] / len(s)).reset_index(drop=True)


def calibrated_ece(scores: ArrayLike, *, draws: int = 200, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """What the calibration error of these probabilities would be if they were true: mean and upper end.

    The error is never 0 on a sample, because every gap counts as positive. Labels are drawn from the probabilities
    ([N] or [N, L] of one seed), images independent of each other, so that patients with several images would raise it a
    little further. The upper end lies above that part (`level`) of the draws.
    """
    s, rng = np.asarray(scores, dtype=np.float64), np.random.default_rng(seed)
    found = [expected_calibration_error((rng.random(s.shape) < s).astype(np.int64), s) for _ in range(draws)]
    return float(np.mean(found)), float(np.quantile(found, level))
