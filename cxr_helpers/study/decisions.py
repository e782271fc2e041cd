"""Predictions into decisions and labels, from records alone: seeds averaged, intervals over test's patients.

Thresholds are chosen on val, per seed and label; nothing is chosen on test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from ..probe import (
    auc_score,
    bootstrap_band,
    classification_metrics,
    expected_calibration_error,
    label_aucs,
    reliability,
    threshold_from,
)
from .plan import Row
from .scores import Scores, stacked

__all__ = ["calibration", "class_scores", "confusion", "label_scores", "operating"]


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
        `encoder, dataset, ece` and `tp, fn, fp, tn` (of all labels), means over seeds; `sensitivity, specificity` of
        these counts.
    """
    lines = []
    for row in (row for row in rows if row.runs):
        test, val = stacked(row), stacked(row, "val")
        line = {"encoder": row.label, "dataset": row.dataset, **_decided(test, val)}
        lines.append(line | {"ece": np.mean([expected_calibration_error(test.labels, one) for one in test.stack])})
    return pd.DataFrame(lines)


def _decided(test: Scores, val: Scores) -> dict[str, float]:
    """Counts of decisions at val's thresholds, of labels that have one under every seed."""
    thresholds = np.array([threshold_from(val.labels, one) for one in val.stack])  # [S, L]
    truth = test.labels.reshape(len(test.labels), -1) == 1  # [N, L]
    called = test.stack.reshape(len(test.stack), *truth.shape) >= thresholds[:, None]  # [S, N, L]
    usable = np.isfinite(thresholds).all(axis=0)
    cells = {"tp": called & truth, "fn": ~called & truth, "fp": called & ~truth, "tn": ~called & ~truth}
    found = {name: float(cell[:, :, usable].sum(axis=(1, 2)).mean()) for name, cell in cells.items()}
    found |= {"sensitivity": found["tp"] / (found["tp"] + found["fn"])}
    return found | {"specificity": found["tn"] / (found["fp"] + found["tn"])}


def class_scores(rows: Iterable[Row]) -> pd.DataFrame:
    """Where classes exclude each other: every row's test scores, and those of always naming test's largest class.

    Returns:
        `encoder, dataset, auc` (one against the rest, macro), `accuracy, balanced_accuracy, weighted_f1, macro_f1,
        loss` (cross-entropy), `auc not <first class>` and `recall <class>` of the likeliest class, means over seeds.
    """
    lines, every = [], [(row, stacked(row)) for row in rows if row.runs]
    for row, s in every:
        means = pd.DataFrame([_classified(s.labels, one, s.names) for one in s.stack]).mean()
        lines.append({"encoder": row.label, "dataset": row.dataset, **means})
    for row, s in every[:1]:
        same = np.tile(np.bincount(s.labels, minlength=len(s.names)) / len(s.labels), (len(s.labels), 1))
        found = _classified(s.labels, same, s.names)
        lines.append({"encoder": "always the largest class", "dataset": row.dataset, **found})
    return pd.DataFrame(lines)


def _classified(labels: Any, scores: Any, names: tuple[str, ...]) -> dict[str, float]:
    called, known = scores.argmax(axis=1), classification_metrics("multiclass", labels, scores)
    found = {name: known[name] for name in ("auc", "accuracy", "balanced_accuracy")}
    found |= {f"{how}_f1": f1_score(labels, called, average=how, zero_division=0) for how in ("weighted", "macro")}
    found[f"auc not {names[0]}"] = auc_score((labels > 0).astype(int), 1 - scores[:, 0])
    found["loss"] = float(-np.log(np.maximum(scores[np.arange(len(labels)), labels], 1e-15)).mean())
    recalls = recall_score(labels, called, labels=range(len(names)), average=None, zero_division=0)
    return found | {f"recall {name}": float(recall) for name, recall in zip(names, recalls, strict=True)}


def confusion(rows: Iterable[Row]) -> pd.DataFrame:
    """Test films by true class and what they are called, means over seeds: `encoder, true` and a column per class."""
    parts = []
    for row, s in ((row, stacked(row)) for row in rows if row.runs):
        counts = [confusion_matrix(s.labels, one.argmax(axis=1), labels=range(len(s.names))) for one in s.stack]
        called = zip(s.names, np.mean(counts, axis=0).round().astype(int).T, strict=True)
        parts.append(pd.DataFrame({"encoder": row.label, "true": s.names} | {f"called {n}": c for n, c in called}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["encoder", "true"])
