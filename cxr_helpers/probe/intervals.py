"""Uncertainty of metrics: patient-clustered bootstrap intervals, paired differences of two sets of scores.

Patients are drawn with replacement and images carry integer weights, so a resample is never materialised. The
interval is of the test patients; the spread over training seeds is `mean_and_sd`, shown beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import one_vs_rest, weighted_auc

__all__ = [
    "Band",
    "Interval",
    "PairedDifference",
    "bootstrap_band",
    "bootstrap_ci",
    "mean_and_sd",
    "paired_bootstrap",
    "weighted_accuracy",
    "weighted_macro_auc",
]

Floats = NDArray[np.float64]
WeightedMetric = Callable[[NDArray[Any], Floats, NDArray[Any]], Floats]  # labels, scores, weights [R, N] -> [R]
CHUNK_CELLS = 2_000_000  # cells of a block of weights: 16 MB in float64


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A metric of one split, its mean over training seeds where several, and its percentile interval."""

    estimate: float
    low: float
    high: float
    level: float
    num_images: int
    num_groups: int  # patients, or images where patients are not known
    num_seeds: int
    num_resamples: int  # those where the metric was defined


@dataclass(frozen=True, eq=False, kw_only=True)
class Band:
    """Several values of one split at once (a curve, a row of rates) with their pointwise percentile intervals."""

    estimate: Floats  # [P], mean over training seeds
    low: Floats  # [P], nan where no resample defines the value
    high: Floats  # [P]


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Metric of a minus metric of b on the same images, its percentile interval and two-sided p-value."""

    estimate_a: float
    estimate_b: float
    difference: float
    low: float
    high: float
    p_value: float
    level: float
    num_images: int
    num_groups: int
    num_seeds: tuple[int, int]
    num_resamples: int
    seeds_resampled: bool


def weighted_macro_auc(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Macro AUC [R] of weighted images, over the labels with both classes in a resample; nan without any."""
    positive, s = one_vs_rest(labels, scores)
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for i in range(s.shape[1]):
        auc = weighted_auc(positive[:, i], s[:, i], weights)
        total += np.nan_to_num(auc)
        count += np.isfinite(auc)
    return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)


def weighted_accuracy(labels: NDArray[Any], scores: Floats, weights: NDArray[Any]) -> Floats:
    """Accuracy [R] of weighted images: argmax for multi-class, else at .5 (mean over labels)."""
    right = (scores.argmax(axis=1) == labels) if scores.ndim > labels.ndim else ((scores > 0.5) == labels)
    per_image = right.reshape(len(labels), -1).mean(axis=1)
    return weights @ per_image / weights.sum(axis=1)


METRICS: dict[str, WeightedMetric] = {"auc": weighted_macro_auc, "accuracy": weighted_accuracy}


def bootstrap_ci(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    metric: str | WeightedMetric = "auc",
    num_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a metric, resampling patients with replacement.

    Args:
        labels: int [N], or [N, L] multi-label; no rows without a label.
        scores: [N], [N, K] or [N, L]; or a stack [S, ...] over training seeds: then their mean metric.
        groups: the patient of each image [N]; None resamples images.
        metric: "auc" (macro), "accuracy", or a function of (labels, scores, weights [R, N]) to [R].
        num_resamples: R.
        seed: of the resamples; equal seeds and groups draw equal patients.
        level: coverage.
    Raises:
        ValueError: a metric not defined on these labels, an unknown metric, or a level outside (0, 1).
    """
    y, stack = _stack(labels, scores)
    statistic = _metric(metric)
    _check(level, num_resamples)
    estimate = _estimates(y, stack, statistic).mean()
    rng = np.random.default_rng(seed)
    inverse, num_groups = _group_index(groups, len(y))
    blocks = [
        np.mean([statistic(y, s, weights) for s in stack], axis=0)
        for weights in _resamples(rng, inverse, num_groups, num_resamples)
    ]
    values = np.concatenate(blocks)
    values = values[np.isfinite(values)]
    low, high = _percentiles(values, level)
    return Interval(
        estimate=float(estimate),
        low=low,
        high=high,
        level=level,
        num_images=len(y),
        num_groups=num_groups,
        num_seeds=len(stack),
        num_resamples=len(values),
    )


def bootstrap_band(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    curve: WeightedMetric,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Band:
    """Pointwise percentile intervals of a curve, resampling patients with replacement.

    Pointwise: each point of the curve lies in its interval with that coverage, the whole curve in the band with less.

    Args:
        labels, scores, groups, num_resamples, seed, level: as in `bootstrap_ci`.
        curve: a function of (labels, scores, weights [R, N]) to [R, P]; nan where a resample leaves a value undefined.
    Raises:
        ValueError: scores that do not fit the labels, or a level outside (0, 1).
    """
    y, stack = _stack(labels, scores)
    _check(level, num_resamples)
    inverse, num_groups = _group_index(groups, len(y))
    blocks = [
        np.mean([curve(y, s, weights) for s in stack], axis=0)
        for weights in _resamples(np.random.default_rng(seed), inverse, num_groups, num_resamples)
    ]
    values = np.concatenate(blocks)
    low, high = np.full((2, values.shape[1]), np.nan)
    there = np.isfinite(values).any(axis=0)
    if there.any():
        low[there], high[there] = np.nanquantile(values[:, there], [(1 - level) / 2, (1 + level) / 2], axis=0)
    estimate = np.mean([curve(y, s, np.ones((1, len(y))))[0] for s in stack], axis=0)
    return Band(estimate=estimate, low=low, high=high)


def paired_bootstrap(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    resample_seeds: bool = False,
    metric: str | WeightedMetric = "auc",
    num_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Difference of a metric between two sets of scores of the same images, on the same resampled patients.

    The statistic is the mean over training seeds. p = (1 + k) / (1 + R), with k resamples whose difference
    lies at least as far from the observed one as that lies from 0; so p is never 0.

    Args:
        labels, groups, metric, num_resamples, seed, level: as in `bootstrap_ci`.
        scores_a, scores_b: scores as there, or stacks [S, ...] over training seeds; S may differ.
        resample_seeds: draw the training seeds of each side with replacement too, independently. With few
            seeds their variance is understated, to about (S - 1) / S.
    Raises:
        ValueError: as `bootstrap_ci`.
    """
    y, stack_a = _stack(labels, scores_a)
    _, stack_b = _stack(labels, scores_b)
    statistic = _metric(metric)
    _check(level, num_resamples)
    estimate_a, estimate_b = (float(_estimates(y, s, statistic).mean()) for s in (stack_a, stack_b))
    patients, seeds = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    inverse, num_groups = _group_index(groups, len(y))
    blocks = []
    for weights in _resamples(patients, inverse, num_groups, num_resamples):
        sides = []
        for stack in (stack_a, stack_b):
            values = np.stack([statistic(y, s, weights) for s in stack], axis=1)  # [R, S]
            if resample_seeds:
                values = np.take_along_axis(values, seeds.integers(0, len(stack), values.shape), axis=1)
            sides.append(values.mean(axis=1))
        blocks.append(sides[0] - sides[1])
    differences = np.concatenate(blocks)
    differences = differences[np.isfinite(differences)]
    observed = estimate_a - estimate_b
    low, high = _percentiles(differences, level)
    extreme = int((np.abs(differences - observed) >= abs(observed) - 1e-12).sum())
    return PairedDifference(
        estimate_a=estimate_a,
        estimate_b=estimate_b,
        difference=observed,
        low=low,
        high=high,
        p_value=(1 + extreme) / (1 + len(differences)),
        level=level,
        num_images=len(y),
        num_groups=num_groups,
        num_seeds=(len(stack_a), len(stack_b)),
        num_resamples=len(differences),
        seeds_resampled=resample_seeds,
    )


def mean_and_sd(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1; nan for a single value), e.g. over training seeds."""
    v = np.asarray(values, dtype=np.float64)
    return float(v.mean()), float(v.std(ddof=1)) if v.size > 1 else float("nan")


def _stack(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], Floats]:
    """Labels, and scores as a stack [S, N, ...]; without a first axis for seeds, S is 1."""
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if s.shape[: y.ndim] == y.shape:
        s = s[None]
    if s.shape[1 : 1 + y.ndim] != y.shape:
        raise ValueError(
            f"scores must be [N], [N, K] or [N, L] like the labels {list(y.shape)}, "
            f"or a stack of those over seeds, got {list(np.shape(scores))}"
        )
    for one in s:
        one_vs_rest(y, one)  # checks values
    return y, s


def _metric(metric: str | WeightedMetric) -> WeightedMetric:
    if not isinstance(metric, str):
        return metric
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)} or a function, got {metric!r}")
    return METRICS[metric]


def _check(level: float, num_resamples: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")


def _estimates(y: NDArray[Any], stack: Floats, statistic: WeightedMetric) -> Floats:
    values = np.array([statistic(y, s, np.ones((1, len(y))))[0] for s in stack])
    if not np.isfinite(values).all():
        present = ", ".join(str(v) for v in np.unique(y))
        raise ValueError(f"AUC needs both classes among the labels, got only {present}: use a split with both")
    return values


def _group_index(groups: ArrayLike | None, num_images: int) -> tuple[NDArray[np.intp], int]:
    if groups is None:
        return np.arange(num_images), num_images
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    if len(inverse) != num_images:
        raise ValueError(f"groups must name one patient per image, got {len(inverse)} for {num_images} images")
    return inverse, len(names)


def _resamples(
    rng: np.random.Generator, inverse: NDArray[np.intp], num_groups: int, num_resamples: int
) -> Iterator[NDArray[np.float64]]:
    """Blocks of weights [R', N]: how often each image's patient was drawn."""
    rows = max(1, CHUNK_CELLS // len(inverse))
    for first in range(0, num_resamples, rows):
        size = min(rows, num_resamples - first)
        drawn = rng.integers(0, num_groups, (size, num_groups)) + num_groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        yield counts[:, inverse].astype(np.float64)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    if len(values) == 0:
        raise ValueError("no resample held both classes: there are too few patients for an interval")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
