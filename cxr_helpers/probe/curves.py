"""Curves of predictions under many weightings of the same images: ROC, precision-recall, decisions, reliability.

Every function takes weights `[R, N]` (integers: bootstrap resamples; see `scores.weighted_auc`) and is meant for
`bootstrap.bootstrap_band`. With several labels a curve is the mean of the labels' curves at equal abscissa, so that the
area under it is the macro figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import expected_calibration_error, one_vs_rest

__all__ = [
    "CURVE_GRID",
    "DECISION_RATES",
    "Reliability",
    "calibrated_ece",
    "decision_rates",
    "label_aucs",
    "precision_curves",
    "reliability",
    "roc_curves",
    "weighted_macro_average_precision",
    "weighted_means",
    "wilson_interval",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
CURVE_GRID: Floats = np.linspace(0, 1, 201)  # of false-positive rate and of recall: steps half as wide as a line
DECISION_RATES = ("sensitivity", "specificity", "precision", "negative_predictive_value", "accuracy")


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Weights of positives and negatives at or above each distinct score, from the highest down."""

    true: Floats  # [R, K]
    false: Floats  # [R, K]


def _ranked(positive: Bools, scores: Floats, weights: NDArray[Any]) -> _Ranked:
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each group of ties
    w, p = weights[:, order].astype(np.float64), positive[order]
    return _Ranked(np.cumsum(w * p, axis=1)[:, last], np.cumsum(w * ~p, axis=1)[:, last])


def _macro(
    one: Callable[[_Ranked], Floats], labels: NDArray[Any], scores: Floats, weights: NDArray[Any], points: int
) -> Floats:
    """Mean [R, points] over the labels of what `one` makes of each; a label without both classes is left out."""
    positive, s = one_vs_rest(labels, scores)
    total, count = np.zeros((len(weights), points)), np.zeros((len(weights), 1))
    for i in range(s.shape[1]):
        ranked = _ranked(positive[:, i], s[:, i], weights)
        both = (ranked.true[:, -1] > 0) & (ranked.false[:, -1] > 0)
        if both.any():
            total[both] += one(_Ranked(ranked.true[both], ranked.false[both]))
        count[:, 0] += both
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


# ---- ROC and precision-recall


def roc_curves(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Sensitivity [R, 201] at the false-positive rates `CURVE_GRID`, linear between thresholds as the AUC is.

    Where the curve is vertical the higher value stands, at a rate of 0 too.
    """

    def one(ranked: _Ranked) -> Floats:
        x = ranked.false / ranked.false[:, -1:]
        y = ranked.true / ranked.true[:, -1:]
        # Of several y at one x np.interp takes the last, which is the highest.
        return np.array([np.interp(CURVE_GRID, np.append(0, a), np.append(0, b)) for a, b in zip(x, y, strict=True)])

    return _macro(one, labels, scores, weights, len(CURVE_GRID))


def precision_curves(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Precision [R, 201] at the recalls `CURVE_GRID`: of the highest threshold that reaches them, as in the AP."""

    def one(ranked: _Ranked) -> Floats:
        recall = ranked.true / ranked.true[:, -1:]
        called = ranked.true + ranked.false
        precision = np.divide(ranked.true, called, out=np.zeros_like(called), where=called > 0)
        rows = []
        for r, p in zip(recall, precision, strict=True):
            first = np.searchsorted(r, CURVE_GRID - 1e-12, side="left")
            first[0] = np.searchsorted(r, 0, side="right")  # a recall of 0 needs a positive called, too
            rows.append(p[np.minimum(first, len(p) - 1)])
        return np.array(rows)

    return _macro(one, labels, scores, weights, len(CURVE_GRID))


def weighted_macro_average_precision(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Average precision [R] (the sum of precision times step of recall, as scikit-learn's), macro over labels."""

    def one(ranked: _Ranked) -> Floats:
        called = ranked.true + ranked.false
        precision = np.divide(ranked.true, called, out=np.zeros_like(called), where=called > 0)
        steps = np.diff(ranked.true, axis=1, prepend=0.0) / ranked.true[:, -1:]
        return np.asarray((precision * steps).sum(axis=1, keepdims=True))

    return _macro(one, labels, scores, weights, 1)[:, 0]


def label_aucs(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """ROC-AUC of every label [R, L], ties counted one half; nan where a resample lacks one of a label's classes."""
    positive, s = one_vs_rest(labels, scores)
    columns = []
    for i in range(s.shape[1]):
        ranked = _ranked(positive[:, i], s[:, i], weights)
        false = np.diff(ranked.false, axis=1, prepend=0.0)
        wins = (false * (ranked.true - np.diff(ranked.true, axis=1, prepend=0.0) / 2)).sum(axis=1)
        pairs = ranked.true[:, -1] * ranked.false[:, -1]
        columns.append(np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))
    return np.stack(columns, axis=1)


# ---- decisions


def decision_rates(threshold: ArrayLike) -> Callable[[NDArray[Any], Floats, NDArray[Any]], Floats]:
    """A curve for `bootstrap_band`: the five `DECISION_RATES` [R, 5], decisions of all labels pooled.

    Args:
        threshold: scalar or [L], chosen on another split; called positive is `score >= threshold`. A label without
            one (nan) is left out.
    """

    def rates(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
        positive, s = one_vs_rest(labels, scores)
        limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), s.shape[1:])
        usable = np.isfinite(limits)
        p, called = positive[:, usable], s[:, usable] >= limits[usable]
        tp, fn, fp, tn = (weights @ cell.sum(axis=1) for cell in (p & called, p & ~called, ~p & called, ~p & ~called))
        pairs = ((tp, tp + fn), (tn, tn + fp), (tp, tp + fp), (tn, tn + fn), (tp + tn, tp + fn + fp + tn))
        columns = [np.divide(a, b, out=np.full(len(weights), np.nan), where=b > 0) for a, b in pairs]
        return np.stack(columns, axis=1)

    return rates


def weighted_means(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Mean of every column of scores [R, P]: for figures that each image has one of, such as a hit or an IoU."""
    return weights @ scores / weights.sum(axis=1, keepdims=True)


# ---- calibration


@dataclass(frozen=True, eq=False, kw_only=True)
class Reliability:
    """Decisions binned by their probability, as the expected calibration error bins them.

    Bins without a decision are left out. `units` are patients, the number of independent draws at best.
    """

    probability: Floats  # [B], mean of the bin
    frequency: Floats  # [B], part that is positive
    low: Floats  # [B], Wilson's interval on the number of patients
    high: Floats  # [B]
    count: Floats  # [B], decisions in the bin, mean over seeds
    units: NDArray[np.int64]  # [B], patients in the bin under any seed


def wilson_interval(share: ArrayLike, units: ArrayLike, z: float = 1.959964) -> tuple[Floats, Floats]:
    """95 % interval of a share of so many units; not empty at 0 and 1, where a resampling interval is.

    Source: Wilson 1927 (10.1080/01621459.1927.10502953).
    """
    p, n = np.asarray(share, dtype=np.float64), np.asarray(units, dtype=np.float64)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, p), np.clip(centre + half, p, 1)


def reliability(
    labels: ArrayLike, stack: ArrayLike, groups: ArrayLike | None = None, *, num_bins: int = 15
) -> Reliability:
    """The reliability diagram: how often a probability comes true, bin by bin, seeds and labels pooled.

    Args:
        labels: [N] or [N, L].
        stack: probabilities [S, N] or [S, N, L], one per training seed.
        groups: patients [N]; None counts images.
        num_bins: of equal width, as in `expected_calibration_error`.
    """
    y, s = np.asarray(labels), np.asarray(stack, dtype=np.float64)
    seeds, num = s.shape[0], len(y)
    positive = np.broadcast_to(y.reshape(1, num, -1) == 1, s.reshape(seeds, num, -1).shape)
    s = s.reshape(positive.shape)
    _, patient = np.unique(np.arange(num) if groups is None else np.asarray(groups), return_inverse=True)
    owner = np.broadcast_to(patient[None, :, None], s.shape)
    bins = np.minimum((s * num_bins).astype(int), num_bins - 1)
    rows = []
    for index in np.unique(bins):
        inside = bins == index
        patients = len(np.unique(owner[inside]))
        rows.append((s[inside].mean(), positive[inside].mean(), inside.sum() / seeds, patients))
    probability, frequency, count, units = np.array(rows, dtype=np.float64).T
    low, high = wilson_interval(frequency, units)
    return Reliability(
        probability=probability, frequency=frequency, low=low, high=high, count=count, units=units.astype(np.int64)
    )


def calibrated_ece(scores: ArrayLike, *, draws: int = 200, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """What the calibration error of these probabilities would be if they were true: mean and upper end.

    The error is never 0 on a sample, because every gap counts as positive. Labels are drawn from the probabilities,
    images independent of each other, so that patients with several images would raise it a little further.

    Args:
        scores: probabilities [N] or [N, L] of one seed.
        draws: of labels. level: the upper end lies above that part of them.
    """
    s, rng = np.asarray(scores, dtype=np.float64), np.random.default_rng(seed)
    found = [expected_calibration_error((rng.random(s.shape) < s).astype(np.int64), s) for _ in range(draws)]
    return float(np.mean(found)), float(np.quantile(found, level))
