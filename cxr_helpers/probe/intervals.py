"""Uncertainty of metrics: patient-clustered bootstrap intervals, paired differences, correction for several of them.

Patients are drawn with replacement and images carry integer weights, so a resample is never materialised. Equal seeds
and groups draw equal patients: what was resampled apart can be subtracted draw by draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import Floats, macro, one_vs_rest, weighted_accuracy, weighted_macro_auc

# labels, scores, weights [R, N] -> [R], or of several values at once (a curve) [R, P]
WeightedMetric = Callable[[NDArray[Any], Floats, NDArray[Any]], Floats]
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


@dataclass(frozen=True)
class PairedDifference:
    """Metric of a minus metric of b on the same images, its percentile interval and two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric of each training seed's scores on the images as they are, and on R draws of their patients."""

    observed: Floats  # [S] or [S, P]
    draws: Floats  # [R, S] or [R, S, P]
    num_images: int
    num_groups: int


# ---- resampling


def resample(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    metric: str | WeightedMetric = "auc",
    num_resamples: int = 2000,
    seed: int = 0,
) -> Resampled:
    """A metric of each training seed on the same draws of patients.

    Args:
        labels: int [N], or [N, L] multi-label; no rows without a label.
        scores: [N], [N, K] or [N, L]; or a stack [S, ...] of those over training seeds.
        groups: the patient of each image [N]; None draws images.
        metric: "auc" (macro), "accuracy", or a function of (labels, scores, weights [R, N]) to [R] or [R, P].
        num_resamples: R.
        seed: of the draws; equal seeds and groups draw equal patients.
    Raises:
        ValueError: shapes that do not fit, or an unknown metric.
    """
    y, stack = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if stack.shape[: y.ndim] == y.shape:
        stack = stack[None]
    for one in stack:
        one_vs_rest(y, one)  # checks
    statistic = METRICS.get(metric) if isinstance(metric, str) else metric
    if statistic is None:
        raise ValueError(f"metric must be one of {', '.join(METRICS)} or a function, got {metric!r}")
    names, inverse = np.unique(np.arange(len(y)) if groups is None else np.asarray(groups), return_inverse=True)
    if len(inverse) != len(y):
        raise ValueError(f"groups must name one patient per image, got {len(inverse)} for {len(y)} images")
    blocks = chain([np.ones((1, len(y)))], _weights(inverse, len(names), num_resamples, seed))
    values = np.concatenate([np.stack([statistic(y, s, weights) for s in stack], axis=1) for weights in blocks])
    return Resampled(values[0], values[1:], len(y), len(names))


def _blocks(num_resamples: int, num_images: int) -> list[range]:
    """Resamples whose weights are made at once."""
    every = range(num_resamples)
    rows = max(1, CHUNK_CELLS // num_images)
    return [every[first : first + rows] for first in every[::rows]]


def _weights(inverse: NDArray[np.intp], num_groups: int, num_resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks of weights [R', N]: how often each image's patient was drawn; inverse [N] are the patients' numbers."""
    rng = np.random.default_rng(seed)
    for size in map(len, _blocks(num_resamples, len(inverse))):
        drawn = rng.integers(0, num_groups, (size, num_groups)) + num_groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        yield counts[:, inverse].astype(np.float64)


def _ends(values: Floats) -> Floats:
    """Ends [2] of the central 95 % of values [R], or [2, P] of [R, P]; what is nan does not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no value but nan has ends of nan
        return np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def _scalar_ends(values: Floats) -> tuple[float, float]:
    low, high = _ends(values)
    if np.isnan(low):
        raise ValueError("no resample held both classes: there are too few patients for an interval")
    return float(low), float(high)


# ---- intervals and differences


def bootstrap_ci(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None, **how: Any) -> Interval[float]:
    """Interval of a metric, its mean over training seeds, resampling patients with replacement: see `resample`."""
    found = resample(labels, scores, groups, **how)
    estimate, (low, high) = macro(found.observed, labels), _scalar_ends(found.draws.mean(axis=1))
    return Interval(estimate, low, high, found.num_images, found.num_groups)


def bootstrap_band(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    curve: WeightedMetric,
    num_resamples: int = 1000,
    **how: Any,
) -> Interval[Floats]:
    """Interval of each point of a curve: a point lies in its own with that coverage, the whole curve with less.

    curve: a function of (labels, scores, weights [R, N]) to [R, P]; nan where a resample leaves a value undefined.
    """
    found = resample(labels, scores, groups, metric=curve, num_resamples=num_resamples, **how)
    low, high = _ends(found.draws.mean(axis=1))
    return Interval(found.observed.mean(axis=0), low, high, found.num_images, found.num_groups)


def paired_bootstrap(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    resample_seeds: bool = False,
    seed: int = 0,
    **how: Any,
) -> PairedDifference:
    """Difference of a metric between two sets of scores of the same images, on the same resampled patients.

    The statistic is the mean over training seeds. p = (1 + k) / (1 + R), with k resamples whose difference lies at
    least as far from the observed one as that lies from 0; so p is never 0.

    Args:
        labels, groups, seed, how: as in `resample`.
        scores_a, scores_b: scores as there; the numbers of seeds may differ.
        resample_seeds: draw the training seeds of each side with replacement too, independently. With few seeds their
            variance is understated, to about (S - 1) / S.
    """
    a, b = (resample(labels, scores, groups, seed=seed, **how) for scores in (scores_a, scores_b))
    if resample_seeds:
        _draw_seeds((a, b), seed)
    differences = a.draws.mean(axis=1) - b.draws.mean(axis=1)
    differences = differences[np.isfinite(differences)]
    observed, (low, high) = macro(a.observed, labels) - macro(b.observed, labels), _scalar_ends(differences)
    extreme = int((np.abs(differences - observed) >= abs(observed) - 1e-12).sum())
    return PairedDifference(observed, low, high, (1 + extreme) / (1 + len(differences)))


def _draw_seeds(sides: Sequence[Resampled], seed: int) -> None:
    """Put in every resample training seeds drawn with replacement in the place of each side's own."""
    seeds = np.random.default_rng([seed, 1])
    for rows in _blocks(len(sides[0].draws), sides[0].num_images):
        for draws in (side.draws[rows[0] : rows[-1] + 1] for side in sides):  # [R', S]
            draws[:] = np.take_along_axis(draws, seeds.integers(0, draws.shape[1], draws.shape), axis=1)


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
