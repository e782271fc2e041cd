"""Predictions into curves, decisions and labels, from records alone: seeds averaged, intervals over test's patients.

Thresholds are chosen on val, per seed and label; nothing is chosen on test. Classes that exclude each other have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..probe import (
    WeightedMetric,
    bootstrap_band,
    calibrated_ece,
    expected_calibration_error,
    label_aucs,
    precision_curves,
    reliability,
    roc_curves,
    threshold_from,
    weighted_macro_auc,
    weighted_macro_average_precision,
)
from .plan import Row
from .tables import Scores, stacked

__all__ = ["calibration", "label_scores", "operating"]

CURVES: dict[str, WeightedMetric] = {"roc": roc_curves, "precision": precision_curves}


def _each(rows: Iterable[Row], make: Callable[[Scores], Mapping[str, Any]]) -> pd.DataFrame:
    """The columns made of every row's test scores, below each other."""
    parts = [
        pd.DataFrame({**make(stacked(row)), "encoder": row.label, "dataset": row.dataset}) for row in rows if row.runs
    ]
    return pd.concat(parts, ignore_index=True)


def label_scores(rows: Iterable[Row], *, num_resamples: int = 1000) -> pd.DataFrame:
    """AUC of each label: `encoder, dataset, name, auc, low, high, support` (its positives in test)."""

    def made(s: Scores) -> Mapping[str, Any]:
        band = bootstrap_band(s.labels, s.stack, s.groups, curve=label_aucs, num_resamples=num_resamples)
        support = (s.labels.reshape(len(s.labels), -1) == 1).sum(axis=0)
        return {"name": s.names, "auc": band.estimate, "low": band.low, "high": band.high, "support": support}

    return _each(rows, made)


def calibration(rows: Iterable[Row]) -> pd.DataFrame:
    """The reliability diagram of every row: `encoder, dataset, probability, frequency, low, high, count, units`."""
    return _each(rows, lambda s: dict(reliability(s.labels, s.stack, s.groups)))


def operating(rows: Iterable[Row]) -> pd.DataFrame:
    """What val's thresholds make of test, and whether probabilities can be taken at their word.

    Returns:
        `encoder, dataset, auc, ap, prevalence` (means over labels); `tp, fn, fp, tn` (of all labels, mean over seeds)
        and `sensitivity, specificity` of them; `point_fpr, point_sensitivity, point_precision`, where that lies on the
        mean curves; `ece`, and `ece_floor, ece_floor_high`: what true probabilities would have on as many images.
    """
    lines = []
    for row in (row for row in rows if row.runs):
        scores, val = stacked(row), stacked(row, "val")
        thresholds = np.array([threshold_from(val.labels, one) for one in val.stack])  # [S, L]
        line = {"encoder": row.label, "dataset": row.dataset, "auc": _mean(scores, weighted_macro_auc)}
        line |= {"ap": _mean(scores, weighted_macro_average_precision), **_decided(scores, thresholds)}
        lines.append(line | _trusted(scores))
    return pd.DataFrame(lines)


def _mean(scores: Scores, metric: WeightedMetric) -> float:
    once = np.ones((1, len(scores.labels)))
    return float(np.mean([metric(scores.labels, one, once)[0] for one in scores.stack]))


def _decided(scores: Scores, thresholds: NDArray[np.float64]) -> dict[str, float]:
    truth = scores.labels.reshape(len(scores.labels), -1) == 1  # [N, L]
    called = scores.stack.reshape(len(scores.stack), *truth.shape) >= thresholds[:, None]  # [S, N, L]
    usable = np.isfinite(thresholds).all(axis=0)
    cells = {"tp": called & truth, "fn": ~called & truth, "fp": called & ~truth, "tn": ~called & ~truth}
    by_label = {name: cell[:, :, usable].sum(axis=1).mean(axis=0) for name, cell in cells.items()}  # [L]
    found = {name: float(count.sum()) for name, count in by_label.items()}
    found |= {"sensitivity": found["tp"] / (found["tp"] + found["fn"])}
    found |= {"specificity": found["tn"] / (found["fp"] + found["tn"])}
    return found | _point(truth[:, usable], called[:, :, usable])


def _point(truth: NDArray[np.bool_], called: NDArray[np.bool_]) -> dict[str, float]:
    """Rates of each label with both classes, then their mean."""
    both = truth.any(axis=0) & ~truth.all(axis=0)
    truth, called = truth[:, both], called[:, :, both]
    hits, false = ((called & side).sum(axis=1) for side in (truth, ~truth))  # [S, L]
    precision = hits / np.where(hits + false > 0, hits + false, np.nan)
    return {
        "point_fpr": float((false / (~truth).sum(axis=0)).mean()),
        "point_sensitivity": float((hits / truth.sum(axis=0)).mean()),
        "point_precision": float(np.nanmean(precision)),
        "prevalence": float(truth.mean()),
    }


def _trusted(scores: Scores) -> dict[str, float]:
    floor, high = np.mean([calibrated_ece(one) for one in scores.stack], axis=0)
    errors = [expected_calibration_error(scores.labels, one) for one in scores.stack]
    return {"ece": float(np.mean(errors)), "ece_floor": float(floor), "ece_floor_high": float(high)}
