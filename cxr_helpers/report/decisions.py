"""Predictions into curves: ROC, precision-recall, calibration, decisions and labels, from the records alone.

Every row is one configuration, its seeds averaged, its intervals over the patients of the split. Thresholds are chosen
on val, per seed and label; nothing is chosen on the split that is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..probe import (
    CURVE_GRID,
    DECISION_RATES,
    bootstrap_band,
    bootstrap_ci,
    calibrated_ece,
    decision_rates,
    expected_calibration_error,
    label_aucs,
    precision_curves,
    reliability,
    roc_curves,
    threshold_from,
    weighted_macro_average_precision,
)
from ..runs import Run
from .tables import Scores, distinct_labels, identity_of, seeds_together, stack_scores

__all__ = ["calibration_table", "curve_table", "frozen_encoders", "label_table", "operating_table"]

CURVES = {"roc": roc_curves, "precision": precision_curves}
CELLS = ("tp", "fn", "fp", "tn")


def frozen_encoders(runs: Iterable[Run]) -> list[Run]:
    """The runs that the linear probe speaks for: those without a head of their own, scored on test."""
    return [run for run in runs if "head" not in run.metrics and "test" in run.metrics.get("linear", {})]


@dataclass(frozen=True, eq=False)
class _Encoder:
    """One configuration: what it is called, its predictions, and the decisions its val thresholds make of them."""

    identity: dict[str, Any]
    names: tuple[str, ...]  # of the labels
    scores: Scores
    thresholds: NDArray[np.float64]  # [S, L], nan for a label without both classes in val

    def decisions(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Labels [N, L'] and calls [S, N, L'] in {0, 1} of the labels that have a threshold under every seed."""
        labels = self.scores.labels.reshape(len(self.scores.labels), -1)
        stack = self.scores.stack.reshape(len(self.scores.stack), *labels.shape)
        usable = np.isfinite(self.thresholds).all(axis=0)
        calls = stack[:, :, usable] >= self.thresholds[:, None, usable]
        return labels[:, usable], calls.astype(np.float64)


def _encoders(runs: Iterable[Run], split: str) -> Iterator[_Encoder]:
    for members in seeds_together(runs).values():
        scores, val = stack_scores(members, split), stack_scores(members, "val")
        if scores.stack.ndim > scores.labels.ndim + 1:
            raise ValueError(
                f"curves must be of a binary or a multi-label task, got exclusive classes ({members[0].id})"
            )
        columns = [c for c in members[0].predictions(split).columns if c.startswith("score/")]
        thresholds = np.array([threshold_from(val.labels, one) for one in val.stack])
        identity = {**identity_of(members[0]), "num_seeds": len(members), "split": split}
        del identity["seed"], identity["commit"]  # of the first run alone
        yield _Encoder(identity, tuple(c.removeprefix("score/") for c in columns), scores, thresholds)


def _table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return distinct_labels(pd.concat(parts, ignore_index=True)) if parts else pd.DataFrame()


def _by_encoder(
    runs: Iterable[Run], split: str, rows: Callable[[_Encoder], pd.DataFrame | dict[str, Any]]
) -> pd.DataFrame:
    parts = []
    for encoder in _encoders(runs, split):
        found = rows(encoder)
        table = pd.DataFrame([found]) if isinstance(found, dict) else found
        parts.append(table.assign(**encoder.identity))
    return _table(parts)


# ---- curves


def curve_table(runs: Iterable[Run], kind: str, *, split: str = "test", num_resamples: int = 500) -> pd.DataFrame:
    """A curve of every configuration with its pointwise 95 % band over patients.

    Args:
        kind: roc (x: false-positive rate, y: sensitivity) or precision (x: recall, y: precision).
    Returns:
        `label, family, x, y, low, high, …`, 201 rows per configuration.
    Raises:
        ValueError: an unknown kind, or a task whose classes exclude each other.
    """
    if kind not in CURVES:
        raise ValueError(f"kind must be one of {', '.join(CURVES)}, got {kind!r}")

    def rows(encoder: _Encoder) -> pd.DataFrame:
        s = encoder.scores
        band = bootstrap_band(s.labels, s.stack, s.groups, curve=CURVES[kind], num_resamples=num_resamples)
        return pd.DataFrame({"x": CURVE_GRID, "y": band.estimate, "low": band.low, "high": band.high})

    return _by_encoder(runs, split, rows)


# ---- one operating point, calibration in one number


def operating_table(runs: Iterable[Run], *, split: str = "test", num_resamples: int = 1000) -> pd.DataFrame:
    """One row per configuration: areas, the decisions at the thresholds chosen on val, and the calibration error.

    Returns:
        `auc, ap` (macro), the five `DECISION_RATES` (all labels pooled), each with `_low` and `_high`; `tp, fn, fp, tn`
        (mean over seeds); `point_fpr, point_sensitivity, point_precision`, where the point lies on the mean curves;
        `prevalence`; `ece`, and `ece_floor, ece_floor_high`, what true probabilities would have on as many images.
    """

    def rows(encoder: _Encoder) -> dict[str, Any]:
        s, row = encoder.scores, dict[str, Any]()
        for name, metric in (("auc", "auc"), ("ap", weighted_macro_average_precision)):
            found = bootstrap_ci(s.labels, s.stack, s.groups, metric=metric, num_resamples=num_resamples)  # type: ignore[arg-type]
            row |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
        labels, calls = encoder.decisions()
        band = bootstrap_band(labels, calls, s.groups, curve=decision_rates(0.5), num_resamples=num_resamples)
        for i, name in enumerate(DECISION_RATES):
            row |= {name: band.estimate[i], f"{name}_low": band.low[i], f"{name}_high": band.high[i]}
        row |= _counts(labels, calls) | _point(labels, calls) | _calibration(s)
        row |= {"images": len(s.labels), "patients": len(np.unique(s.groups)), "num_labels": len(encoder.names)}
        return row | {"decisions": labels.size, "threshold": float(np.nanmean(encoder.thresholds))}

    return _by_encoder(runs, split, rows)


def _counts(labels: NDArray[np.int64], calls: NDArray[np.float64]) -> dict[str, float]:
    positive, called = labels == 1, calls == 1
    cells = (positive & called, positive & ~called, ~positive & called, ~positive & ~called)
    return {name: float(cell.sum() / len(calls)) for name, cell in zip(CELLS, cells, strict=True)}


def _point(labels: NDArray[np.int64], calls: NDArray[np.float64]) -> dict[str, float]:
    """The decisions as a point of the mean curves: rates of each label with both classes, then their mean."""
    both = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    positive, called = labels[:, both] == 1, calls[:, :, both] == 1
    tp, fp = ((called & truth).sum(axis=1).astype(float) for truth in (positive, ~positive))  # [S, L]
    all_called = tp + fp
    precision = np.divide(tp, all_called, out=np.full_like(tp, np.nan), where=all_called > 0)
    return {
        "point_fpr": float((fp / (~positive).sum(axis=0)).mean()),
        "point_sensitivity": float((tp / positive.sum(axis=0)).mean()),
        "point_precision": float(np.nanmean(precision)) if np.isfinite(precision).any() else float("nan"),
        "prevalence": float(positive.mean(axis=0).mean()),
    }


def _calibration(scores: Scores) -> dict[str, float]:
    floors = [calibrated_ece(one) for one in scores.stack]
    return {
        "ece": float(np.mean([expected_calibration_error(scores.labels, one) for one in scores.stack])),
        "ece_floor": float(np.mean([mean for mean, _ in floors])),
        "ece_floor_high": float(np.mean([high for _, high in floors])),
    }


def calibration_table(runs: Iterable[Run], *, split: str = "test") -> pd.DataFrame:
    """The reliability diagram of every configuration, in the bins of the calibration error.

    Returns:
        A row per configuration and bin that holds a decision: `probability, frequency, low, high, count, units`.
    """

    def rows(encoder: _Encoder) -> pd.DataFrame:
        return reliability(encoder.scores.labels, encoder.scores.stack, encoder.scores.groups)

    return _by_encoder(runs, split, rows)


# ---- labels one by one


def label_table(runs: Iterable[Run], *, split: str = "test", num_resamples: int = 1000) -> pd.DataFrame:
    """AUC of each label of each configuration with its patient-clustered interval, and how many positives it has.

    Returns:
        `name, auc, low, high, support, images, label, family, …`; auc is nan where the split lacks one of a label's
        classes.
    """

    def rows(encoder: _Encoder) -> pd.DataFrame:
        s = encoder.scores
        band = bootstrap_band(s.labels, s.stack, s.groups, curve=label_aucs, num_resamples=num_resamples)
        support = (s.labels.reshape(len(s.labels), -1) == 1).sum(axis=0)
        values = {"auc": band.estimate, "low": band.low, "high": band.high, "support": support}
        return pd.DataFrame({"name": encoder.names, **values, "images": len(s.labels)})

    return _by_encoder(runs, split, rows)
