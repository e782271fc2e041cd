"""Curves and calibration: equal to scikit-learn's, to hand counts, and to resamples written out as copies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from cxr_helpers import probe as metrics
from cxr_helpers.probe import curves

RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 2, 150)
SCORES = np.round(1 / (1 + np.exp(-(1.5 * LABELS - 0.7 + RNG.normal(size=150)))), 2)  # with ties
WEIGHTS = RNG.integers(0, 4, (5, 150))
ONCE = np.ones((1, 150))


def _copies(weights: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(weights)), weights)


@pytest.mark.parametrize("row", range(5))
def test_a_weighted_curve_is_the_curve_of_the_copies(row: int) -> None:
    rows = _copies(WEIGHTS[row])
    x, y, _ = roc_curve(LABELS[rows], SCORES[rows], drop_intermediate=False)
    expected = np.interp(metrics.CURVE_GRID, x, y)
    np.testing.assert_allclose(metrics.roc_curves(LABELS, SCORES, WEIGHTS[row : row + 1])[0], expected, atol=1e-12)
    precision, recall, _ = precision_recall_curve(LABELS[rows], SCORES[rows])
    steps = [precision[np.flatnonzero(recall >= r - 1e-12)[-1]] for r in metrics.CURVE_GRID[1:]]
    found = metrics.precision_curves(LABELS, SCORES, WEIGHTS[row : row + 1])[0]
    np.testing.assert_allclose(found[1:], steps, atol=1e-12)
    ap = metrics.weighted_macro_average_precision(LABELS, SCORES, WEIGHTS[row : row + 1])[0]
    assert ap == pytest.approx(average_precision_score(LABELS[rows], SCORES[rows]), abs=1e-12)
    auc = metrics.label_aucs(LABELS, SCORES, WEIGHTS[row : row + 1])
    assert auc.shape == (1, 1) and auc[0, 0] == pytest.approx(roc_auc_score(LABELS[rows], SCORES[rows]), abs=1e-12)


def test_the_curve_of_several_labels_has_the_macro_figure_below_it() -> None:
    labels = np.stack([LABELS, 1 - LABELS[::-1], np.zeros(150, int)], axis=1)  # the last has one class only
    scores = np.stack([SCORES, SCORES[::-1], SCORES], axis=1)
    roc = metrics.roc_curves(labels, scores, ONCE)[0]
    assert np.trapezoid(roc, metrics.CURVE_GRID) == pytest.approx(metrics.auc_score(labels, scores), abs=0.01)
    pr = metrics.precision_curves(labels, scores, ONCE)[0]
    macro = metrics.average_precision(labels, scores)
    assert np.trapezoid(pr, metrics.CURVE_GRID) == pytest.approx(macro, abs=0.01)
    assert metrics.weighted_macro_average_precision(labels, scores, ONCE)[0] == pytest.approx(macro, abs=1e-12)
    aucs = metrics.label_aucs(labels, scores, ONCE)[0]
    np.testing.assert_allclose(aucs, metrics.per_label_auc(labels, scores), equal_nan=True)


def test_perfect_and_useless_scores_have_the_curves_of_the_book() -> None:
    perfect = metrics.roc_curves(LABELS, LABELS.astype(float), ONCE)[0]
    assert (perfect == 1).all() and (metrics.precision_curves(LABELS, LABELS.astype(float), ONCE) == 1).all()
    constant = np.full(150, 0.5)
    np.testing.assert_allclose(metrics.roc_curves(LABELS, constant, ONCE)[0], metrics.CURVE_GRID)
    np.testing.assert_allclose(metrics.precision_curves(LABELS, constant, ONCE)[0], LABELS.mean())
    assert np.isnan(metrics.roc_curves(LABELS, SCORES, np.where(LABELS, 1.0, 0.0)[None])).all()


def test_a_band_is_that_of_resampled_patients_and_its_estimate_the_mean_of_the_seeds() -> None:
    groups = np.arange(150) // 3
    stack = np.stack([SCORES, 0.5 * SCORES + 0.5 * RNG.random(150)])
    band = metrics.bootstrap_band(LABELS, stack, groups, curve=metrics.label_aucs, num_resamples=300)
    interval = metrics.bootstrap_ci(LABELS, stack, groups, num_resamples=300)
    found = (band.estimate[0], band.low[0], band.high[0])
    assert found == pytest.approx((interval.estimate, interval.low, interval.high), abs=1e-12)
    curve = metrics.bootstrap_band(LABELS, SCORES, groups, curve=metrics.roc_curves, num_resamples=100)
    assert (curve.low <= curve.estimate + 1e-9).all() and (curve.estimate <= curve.high + 1e-9).all()
    assert (np.diff(curve.estimate) >= -1e-12).all() and curve.high[-1] == curve.low[-1] == 1
    undefined = metrics.bootstrap_band(
        LABELS, SCORES, curve=lambda y, s, w: np.full((len(w), 2), np.nan), num_resamples=5
    )
    assert np.isnan(undefined.low).all()


def test_decisions_at_a_threshold_are_counted_by_hand() -> None:
    labels, scores = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.5, 0.2, 0.6, 0.1])
    rates = metrics.decision_rates(0.5)(labels, scores, np.ones((1, 5)))[0]
    named = dict(zip(metrics.DECISION_RATES, rates, strict=True))
    assert named == pytest.approx(
        {"sensitivity": 2 / 3, "specificity": 1 / 2, "precision": 2 / 3, "negative_predictive_value": 1 / 2,
         "accuracy": 3 / 5}
    )  # fmt: skip
    twice = metrics.decision_rates(0.5)(labels, scores, np.array([[1, 1, 2, 1, 1]]))[0]
    assert twice[0] == pytest.approx(2 / 4)
    two = np.stack([labels, 1 - labels], axis=1)
    with_nan = metrics.decision_rates([0.5, np.nan])(two, np.stack([scores, scores], axis=1), np.ones((1, 5)))[0]
    np.testing.assert_allclose(with_nan, rates)
    assert np.isnan(metrics.decision_rates(2.0)(labels, scores, np.ones((1, 5)))[0][2])  # nothing called positive


def test_the_reliability_diagram_adds_up_to_the_calibration_error() -> None:
    bins = metrics.reliability(LABELS, SCORES[None], np.arange(150) // 2)
    gaps = np.abs(bins.probability - bins.frequency) * bins.count / 150
    assert gaps.sum() == pytest.approx(metrics.expected_calibration_error(LABELS, SCORES))
    assert bins.count.sum() == 150 and (bins.units <= bins.count).all()
    assert (bins.low <= bins.frequency).all() and (bins.frequency <= bins.high).all()
    twice = metrics.reliability(LABELS, np.stack([SCORES, SCORES]), np.arange(150) // 2)
    np.testing.assert_allclose(twice.count, bins.count)
    np.testing.assert_array_equal(twice.units, bins.units)


def test_wilsons_interval_is_that_of_the_textbook_and_open_at_the_ends() -> None:
    low, high = metrics.wilson_interval([0.5, 0.0, 1.0], [10, 10, 10])
    assert (low[0], high[0]) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert low[1] == 0 and high[1] == pytest.approx(0.2775, abs=1e-4)
    assert high[2] == 1 and low[2] == pytest.approx(1 - 0.2775, abs=1e-4)


def test_true_probabilities_have_a_calibration_error_too_and_it_is_the_expected_one() -> None:
    mean, upper = metrics.calibrated_ece(np.full(40, 0.5), draws=2000)
    counts = np.arange(41)
    expected = float((binom.pmf(counts, 40, 0.5) * np.abs(counts / 40 - 0.5)).sum())  # one bin holds them all
    assert mean == pytest.approx(expected, rel=0.05) and upper > mean
    larger, _ = metrics.calibrated_ece(np.full(4000, 0.5), draws=200)
    assert larger < mean / 5
    assert metrics.calibrated_ece(np.array([0.0, 1.0])) == (0.0, 0.0)


def test_the_grid_runs_from_nothing_to_everything() -> None:
    assert curves.CURVE_GRID[0] == 0 and curves.CURVE_GRID[-1] == 1 and len(curves.CURVE_GRID) == 201
