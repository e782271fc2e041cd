"""Uncertainty of metrics: patient-clustered bootstrap intervals, paired differences, correction for several of them.

Patients are drawn with replacement and images carry integer weights, so a resample is never materialised. Intervals are
95 % percentile intervals over the split's patients; the spread over training seeds (`mean_and_sd`) is shown beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import Floats, macro, one_vs_rest, weighted_accuracy, weighted_macro_auc

WeightedMetric = Callable[
    [NDArray[Any], Floats, NDArray[Any]], Floats
]  # labels, scores, weights [R, N] -> [R] or [R, P]
METRICS: dict[str, WeightedMetric] = {"auc": weighted_macro_auc, "accuracy": weighted_accuracy}
LEVEL = 0.95  # of every interval
CHUNK_CELLS = 2_000_000  # cells of a block of weights: 16 MB in float64
T = TypeVar("T", float, Floats)


@dataclass(frozen=True)
class Interval(Generic[T]):
    """A metric of one split, or several at once (a curve, [P]): mean over training seeds and percentile interval."""

    estimate: T
    low: T  # nan where no resample defines the value of a curve
    high: T
    num_images: int
    num_groups: int  # patients, or images where patients are not known


Band = Interval[Floats]


@dataclass(frozen=True)
class PairedDifference:
    """Metric of a minus metric of b on the same images, its percentile interval and two-sided p-value."""

    estimate_a: float
    estimate_b: float
    difference: float
    low: float
    high: float
    p_value: float
    num_images: int
    num_groups: int


# ---- resampling


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
    found = METRICS.get(metric) if isinstance(metric, str) else metric
    if found is None:
        raise ValueError(f"metric must be one of {', '.join(METRICS)} or a function, got {metric!r}")
    return found


def _group_index(groups: ArrayLike | None, num_images: int) -> tuple[NDArray[np.intp], int]:
    """The number of each image's patient [N], and how many there are."""
    names, inverse = np.unique(np.arange(num_images) if groups is None else np.asarray(groups), return_inverse=True)
    if len(inverse) != num_images:
        raise ValueError(f"groups must name one patient per image, got {len(inverse)} for {num_images} images")
    return inverse, len(names)


def _resamples(inverse: NDArray[np.intp], num_groups: int, num_resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks of weights [R', N]: how often each image's patient was drawn."""
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    rng, rows = np.random.default_rng(seed), max(1, CHUNK_CELLS // len(inverse))
    for first in range(0, num_resamples, rows):
        size = min(rows, num_resamples - first)
        drawn = rng.integers(0, num_groups, (size, num_groups)) + num_groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        yield counts[:, inverse].astype(np.float64)


def _mean(y: NDArray[Any], stack: Floats, statistic: WeightedMetric, weights: Floats | None = None) -> Floats:
    """The statistic [R] or [R, P] of weighted images, or of the images as they are, its mean over training seeds."""
    weights = np.ones((1, len(y))) if weights is None else weights
    return np.asarray(np.mean([statistic(y, s, weights) for s in stack], axis=0))


def _ends(values: Floats) -> tuple[Floats, Floats]:
    """Ends [P] of the central 95 % of values [R, P]; what is nan does not count."""
    low, high = np.full((2, values.shape[1]), np.nan)
    there = np.isfinite(values).any(axis=0)
    if there.any():
        low[there], high[there] = np.nanquantile(values[:, there], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def _scalar_ends(values: Floats) -> tuple[float, float]:
    (low,), (high,) = _ends(values[:, None])
    if np.isnan(low):
        raise ValueError("no resample held both classes: there are too few patients for an interval")
    return float(low), float(high)


# ---- intervals and differences


def bootstrap_ci(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    metric: str | WeightedMetric = "auc",
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval[float]:
    """Interval of a metric, resampling patients with replacement.

    Args:
        labels: int [N], or [N, L] multi-label; no rows without a label.
        scores: [N], [N, K] or [N, L]; or a stack [S, ...] over training seeds: then their mean metric.
        groups: the patient of each image [N]; None resamples images.
        metric: "auc" (macro), "accuracy", or a function of (labels, scores, weights [R, N]) to [R].
        num_resamples: R.
        seed: of the resamples; equal seeds and groups draw equal patients.
    Raises:
        ValueError: a metric not defined on these labels, or an unknown one; shapes that do not fit.
    """
    (y, stack), statistic = _stack(labels, scores), _metric(metric)
    estimate, (inverse, num_groups) = macro(_mean(y, stack, statistic), y), _group_index(groups, len(y))
    blocks = [_mean(y, stack, statistic, w) for w in _resamples(inverse, num_groups, num_resamples, seed)]
    return Interval(estimate, *_scalar_ends(np.concatenate(blocks)), len(y), num_groups)


def bootstrap_band(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    curve: WeightedMetric,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Band:
    """Interval of each point of a curve: a point lies in its own with that coverage, the whole curve with less.

    Args:
        labels, scores, groups, num_resamples, seed: as in `bootstrap_ci`.
        curve: a function of (labels, scores, weights [R, N]) to [R, P]; nan where a resample leaves a value undefined.
    Raises:
        ValueError: shapes that do not fit.
    """
    (y, stack), (inverse, num_groups) = _stack(labels, scores), _group_index(groups, np.shape(labels)[0])
    blocks = [_mean(y, stack, curve, w) for w in _resamples(inverse, num_groups, num_resamples, seed)]
    return Interval(_mean(y, stack, curve)[0], *_ends(np.concatenate(blocks)), len(y), num_groups)


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
) -> PairedDifference:
    """Difference of a metric between two sets of scores of the same images, on the same resampled patients.

    The statistic is the mean over training seeds. p = (1 + k) / (1 + R), with k resamples whose difference lies at
    least as far from the observed one as that lies from 0; so p is never 0.

    Args:
        labels, groups, metric, num_resamples, seed: as in `bootstrap_ci`.
        scores_a, scores_b: scores as there, or stacks [S, ...] over training seeds; S may differ.
        resample_seeds: draw the training seeds of each side with replacement too, independently. With few seeds their
            variance is understated, to about (S - 1) / S.
    Raises:
        ValueError: as `bootstrap_ci`.
    """
    (y, stack_a), (_, stack_b), statistic = _stack(labels, scores_a), _stack(labels, scores_b), _metric(metric)
    a, b = (macro(_mean(y, stack, statistic), y) for stack in (stack_a, stack_b))
    inverse, num_groups = _group_index(groups, len(y))
    seeds, blocks = np.random.default_rng([seed, 1]), []
    for weights in _resamples(inverse, num_groups, num_resamples, seed):
        sides = []
        for stack in (stack_a, stack_b):
            values = np.stack([statistic(y, s, weights) for s in stack], axis=1)  # [R, S]
            if resample_seeds:
                values = np.take_along_axis(values, seeds.integers(0, len(stack), values.shape), axis=1)
            sides.append(values.mean(axis=1))
        blocks.append(sides[0] - sides[1])
    differences = np.concatenate(blocks)
    differences = differences[np.isfinite(differences)]
    observed, (low, high) = a - b, _scalar_ends(differences)
    extreme = int((np.abs(differences - observed) >= abs(observed) - 1e-12).sum())
    return PairedDifference(a, b, observed, low, high, (1 + extreme) / (1 + len(differences)), len(y), num_groups)


def holm(p_values: ArrayLike) -> Floats:
    """p-values [N] of several comparisons, corrected for their number (Holm 1979, Scand. J. Stat. 6:65).

    Calling those at or below .05 real keeps the chance of one false call among all of them below 5 %, however the
    comparisons depend on each other. Values outside 0 to 1 raise a ValueError.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must be a list of numbers from 0 to 1, got {p_values!r}")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def mean_and_sd(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1; nan for a single value), e.g. over training seeds."""
    v = np.asarray(values, dtype=np.float64)
    return float(v.mean()), float(v.std(ddof=1)) if v.size > 1 else float("nan")
