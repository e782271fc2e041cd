"""Curves and calibration: equal to scikit-learn's, to hand counts, and to resamples written out as copies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from cxr_helpers import probe

RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 2, 150)
SCORES = np.round(1 / (1 + np.exp(-(1.5 * LABELS - 0.7 + RNG.normal(size=150)))), 2)  # with ties
GROUPS = np.arange(150) // 3
ONCE = np.ones((1, 150))


@pytest.mark.parametrize("seed", range(3))
def test_a_weighted_curve_is_the_curve_of_the_copies(seed: int) -> None:
    weights = np.random.default_rng(seed).integers(0, 4, (1, 150))
    y, s = np.repeat(LABELS, weights[0]), np.repeat(SCORES, weights[0])
    false_rate, true_rate, _ = roc_curve(y, s, drop_intermediate=False)
    expected = np.interp(probe.CURVE_GRID, false_rate, true_rate)
    np.testing.assert_allclose(probe.roc_curves(LABELS, SCORES, weights)[0], expected, atol=1e-12)
    precision, recall, _ = precision_recall_curve(y, s)
    steps = [precision[np.flatnonzero(recall >= r - 1e-12)[-1]] for r in probe.CURVE_GRID[1:]]
    np.testing.assert_allclose(probe.precision_curves(LABELS, SCORES, weights)[0, 1:], steps, atol=1e-12)
    ap = probe.weighted_macro_average_precision(LABELS, SCORES, weights)[0]
    assert ap == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert probe.label_aucs(LABELS, SCORES, weights) == pytest.approx(roc_auc_score(y, s), abs=1e-12)


def test_the_curve_of_several_labels_has_the_macro_figure_below_it() -> None:
    labels = np.stack([LABELS, 1 - LABELS[::-1], np.zeros(150, int)], axis=1)  # the last has one class only
    scores = np.stack([SCORES, SCORES[::-1], SCORES], axis=1)
    macro = probe.average_precision(labels, scores)
    for curve, area in ((probe.roc_curves, probe.auc_score(labels, scores)), (probe.precision_curves, macro)):
        assert np.trapezoid(curve(labels, scores, ONCE)[0], probe.CURVE_GRID) == pytest.approx(area, abs=0.01)
    assert probe.weighted_macro_average_precision(labels, scores, ONCE)[0] == pytest.approx(macro, abs=1e-12)


def test_perfect_and_useless_scores_have_the_curves_of_the_book() -> None:
    for curve, useless in ((probe.roc_curves, probe.CURVE_GRID), (probe.precision_curves, LABELS.mean())):
        assert (curve(LABELS, LABELS.astype(float), ONCE) == 1).all()
        np.testing.assert_allclose(curve(LABELS, np.full(150, 0.5), ONCE)[0], useless)
        assert np.isnan(curve(LABELS, SCORES, LABELS[None])).all()  # nothing but positives


def test_a_band_is_that_of_resampled_patients_and_its_estimate_the_mean_of_the_seeds() -> None:
    stack = np.stack([SCORES, 0.5 * SCORES + 0.5 * RNG.random(150)])
    band = probe.bootstrap_band(LABELS, stack, GROUPS, curve=probe.label_aucs, num_resamples=300)
    interval = probe.bootstrap_ci(LABELS, stack, GROUPS, num_resamples=300)
    found = (band.estimate[0], band.low[0], band.high[0])
    assert found == pytest.approx((interval.estimate, interval.low, interval.high), abs=1e-12)
    curve = probe.bootstrap_band(LABELS, SCORES, GROUPS, curve=probe.roc_curves, num_resamples=100)
    assert (curve.low <= curve.estimate + 1e-9).all() and (curve.estimate <= curve.high + 1e-9).all()
    undefined = probe.bootstrap_band(LABELS, SCORES, curve=lambda y, s, w: np.full((len(w), 2), np.nan))
    assert np.isnan(undefined.low).all()


def test_a_mean_of_figures_per_image_is_weighted() -> None:
    found = probe.weighted_means(
        np.zeros((3, 2)), np.array([[1.0, 0], [2, 0], [3, 6]]), np.array([[1, 1, 0], [0, 0, 2]])
    )
    assert found.tolist() == [[1.5, 0], [3, 6]]


def test_decisions_at_a_threshold_are_counted_by_hand() -> None:
    labels, scores = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.5, 0.2, 0.6, 0.1])
    rates = probe.decision_rates(0.5)
    found = rates(labels, scores, np.array([[1, 1, 1, 1, 1], [1, 1, 2, 1, 1]]))
    assert probe.DECISION_RATES[:3] == ("sensitivity", "specificity", "precision")
    np.testing.assert_allclose(found, [[2 / 3, 1 / 2, 2 / 3, 1 / 2, 3 / 5], [2 / 4, 1 / 2, 2 / 3, 1 / 3, 3 / 6]])
    two = np.stack([labels, 1 - labels], axis=1), np.stack([scores, scores], axis=1)
    np.testing.assert_allclose(probe.decision_rates([0.5, np.nan])(*two, np.ones((1, 5))), found[:1])
    assert np.isnan(probe.decision_rates(2.0)(labels, scores, np.ones((1, 5)))[0, 2])  # nothing called positive


def test_the_reliability_diagram_adds_up_to_the_calibration_error() -> None:
    bins = probe.reliability(LABELS, SCORES[None], GROUPS)
    gaps = (bins["probability"] - bins["frequency"]).abs() * bins["count"] / 150
    assert gaps.sum() == pytest.approx(probe.expected_calibration_error(LABELS, SCORES))
    assert bins["count"].sum() == 150 and (bins["units"] <= bins["count"]).all() and bins["units"].sum() < 150
    twice = probe.reliability(np.stack([LABELS, LABELS], axis=1), np.stack([SCORES, SCORES], axis=1)[None], GROUPS)
    np.testing.assert_array_equal(twice["count"], 2 * bins["count"])
    np.testing.assert_array_equal(twice["units"], bins["units"])


def test_the_interval_of_a_bin_is_wilsons_over_its_patients() -> None:
    bins = probe.reliability(np.arange(40) < 10, np.full((2, 40), 0.3))
    expected = binomtest(10, 40).proportion_ci(method="wilson")
    assert bins.loc[0, ["low", "high"]].tolist() == pytest.approx([expected.low, expected.high], abs=1e-6)
    assert bins.loc[0, "count"] == 40


def test_true_probabilities_have_a_calibration_error_too_and_it_is_the_expected_one() -> None:
    mean, upper = probe.calibrated_ece(np.full(40, 0.5), draws=2000)
    counts = np.arange(41)
    expected = float((binom.pmf(counts, 40, 0.5) * np.abs(counts / 40 - 0.5)).sum())  # one bin holds them all
    assert mean == pytest.approx(expected, rel=0.05) and upper > mean
    assert probe.calibrated_ece(np.full(4000, 0.5))[0] < mean / 5
