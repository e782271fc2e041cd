"""Uncertainty of metrics: patient-clustered bootstrap intervals, paired differences, correction for several of them.

Patients are drawn with replacement and images carry integer weights, so a resample is never materialised. Equal seeds
and groups draw equal patients: what was resampled apart can be subtracted draw by draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import Floats, macro, one_vs_rest, weighted_accuracy, weighted_macro_auc

# labels, scores, weights [R, N] -> [R], or of several values at once (a curve) [R, P]
WeightedMetric = Callable[[NDArray[Any], Floats, NDArray[Any]], Floats]
METRICS: dict[str, WeightedMetric] = {"auc": weighted_macro_auc, "accuracy": weighted_accuracy}
LEVEL = 0.95  # of every interval
CHUNK_CELLS = 4_000_000  # cells of a block of weights: 16 MB in float32
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


def together(several: Sequence[Resampled]) -> Resampled:
    """Trainings of several encoders as one stack, on the same draws of the same patients: its mean is theirs."""
    observed = np.concatenate([one.observed for one in several])
    return replace(several[0], observed=observed, draws=np.concatenate([one.draws for one in several], axis=1))


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
    who = np.arange(len(y)) if groups is None else np.asarray(groups)
    if len(who) != len(y):
        raise ValueError(f"groups must name one patient per image, got {len(who)} for {len(y)} images")
    return redraw(
        lambda weights: np.stack([statistic(y, s, weights) for s in stack], axis=1), who, num_resamples, seed=seed
    )


def redraw(
    statistic: Callable[[NDArray[Any]], Floats], groups: ArrayLike, num_resamples: int = 2000, *, seed: int = 0
) -> Resampled:
    """A statistic of weighted images on the images as they are, and on draws of their patients.

    Args:
        statistic: of weights [R, N] to [R, S] or [R, S, P]. groups: the patient of each image [N].
    """
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    ones = np.ones((1, len(inverse)))
    blocks: Iterator[NDArray[Any]] = chain([ones], _weights(inverse, len(names), num_resamples, seed))
    values = np.concatenate([statistic(weights) for weights in blocks])
    return Resampled(values[0], values[1:], len(inverse), len(names))


def _weights(
    inverse: NDArray[np.intp], num_groups: int, num_resamples: int, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Blocks of weights [R', N]: how often each image's patient was drawn; inverse [N] are the patients' numbers."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK_CELLS // len(inverse))
    for first in range(0, num_resamples, rows):
        size = min(rows, num_resamples - first)
        drawn = rng.integers(0, num_groups, (size, num_groups)) + num_groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        yield np.ascontiguousarray(counts.T.astype(np.float32))[inverse].T  # one image's draws lie side by side


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


# ---- intervals


def bootstrap_ci(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None, **how: Any) -> Interval[float]:
    """Interval of a metric, its mean over training seeds, resampling patients with replacement: see `resample`."""
    found = resample(labels, scores, groups, **how)
    macro(found.observed, labels)  # says what is missing where it is not defined
    return interval_of(found)


def interval_of(found: Resampled) -> Interval[float]:
    """Mean over training seeds and its percentile interval over patients.

    Raises:
        ValueError: the metric is defined on no draw of the patients.
    """
    return Interval(
        float(found.observed.mean()), *_scalar_ends(found.draws.mean(axis=1)), found.num_images, found.num_groups
    )


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


# ---- differences


class SeedSpread(NamedTuple):
    """Variance of a metric between training seeds that draws of patients do not hold, and its degrees of freedom."""

    variance: float = 0.0
    degrees: int = 0  # 0: not known, and left out


def seed_spread(several: Iterable[Resampled]) -> SeedSpread:
    """What training seeds add to the variance of a metric, pooled over encoders with two seeds or more.

    Two seeds of an encoder differ because one is better, and because they err on other patients of this test. The
    draws of patients hold the second part, so it is taken off: (observed variance) - (mean variance within draws).
    """
    parts = [
        (len(one.observed) - 1, one.observed.var(ddof=1) - np.nanmean((one.draws - one.observed).var(axis=1, ddof=1)))
        for one in several
        if len(one.observed) > 1
    ]
    degrees = sum(count for count, _ in parts)
    pooled = sum(count * variance for count, variance in parts) / degrees if degrees else 0.0
    return SeedSpread(max(0.0, float(pooled)), degrees)


def difference_of(a: Resampled, b: Resampled, spread: SeedSpread = SeedSpread(), *, seed: int = 0) -> PairedDifference:
    """Metric of a minus metric of b, means over their training seeds, on the same images and draws of patients.

    Every draw gets a Student's t of the variance that seeds add, spread (1 / S_a + 1 / S_b). The interval is the
    central 95 % of the draws and p twice the smaller part of them beyond 0, so that p is below .05 where 0 is outside.
    p is at least 2 / (1 + R): so small a value means no more than that.

    Raises:
        ValueError: the metric is defined on no draw of the patients.
    """
    observed = float(a.observed.mean() - b.observed.mean())
    draws = a.draws.mean(axis=1) - b.draws.mean(axis=1)
    draws = draws[np.isfinite(draws)]
    if spread.variance > 0:
        scale = np.sqrt(spread.variance * (1 / len(a.observed) + 1 / len(b.observed)))
        draws = draws + scale * np.random.default_rng([seed, 1]).standard_t(spread.degrees, len(draws))
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return PairedDifference(observed, *_scalar_ends(draws), min(1.0, 2 * (1 + beyond) / (1 + len(draws))))


def paired_bootstrap(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    spread: SeedSpread = SeedSpread(),
    **how: Any,
) -> PairedDifference:
    """`difference_of` two sets of scores of the same images; how: as in `resample`."""
    a, b = (resample(labels, scores, groups, **how) for scores in (scores_a, scores_b))
    return difference_of(a, b, spread, seed=how.get("seed", 0))


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
