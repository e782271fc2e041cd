"""Metrics against scikit-learn, MedMNIST's own evaluator and the papers' loops."""

import math

import numpy as np
import pytest
from medmnist.evaluator import getACC, getAUC
from samples import scored
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from cxr_helpers import probe as metrics
from cxr_helpers.data import Task
from cxr_helpers.probe.metrics import weighted_auc

MEDMNIST: dict[Task, str] = {
    "binary": "binary-class", "multilabel": "multi-label, binary-class", "multiclass": "multi-class"
}  # fmt: skip


@pytest.mark.parametrize("task", MEDMNIST)
def test_metrics_equal_scikit_learns_and_medmnists(task: Task) -> None:
    labels, scores = scored(task)
    row = metrics.classification_metrics(task, labels, scores, threshold=metrics.threshold_from(labels, scores))
    assert row["auc"] == pytest.approx(roc_auc_score(labels, scores, multi_class="ovr"), abs=1e-14)
    assert row["auc"] == pytest.approx(getAUC(labels, scores, MEDMNIST[task]), abs=1e-12)
    assert row["accuracy"] == pytest.approx(getACC(labels, scores, MEDMNIST[task]), abs=1e-12)
    truth = np.eye(4)[labels] if task == "multiclass" else labels
    assert row["average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-14)
    decided = scores.argmax(axis=1) if task == "multiclass" else scores > 0.5
    pairs = zip(labels.reshape(len(labels), -1).T, decided.reshape(len(labels), -1).T, strict=True)
    assert row["balanced_accuracy"] == pytest.approx(np.mean([balanced_accuracy_score(*pair) for pair in pairs]))
    assert ("sensitivity" in row) == (task != "multiclass")
    assert all(isinstance(v, float) and math.isfinite(v) for v in row.values())


def test_a_label_without_both_classes_is_skipped_and_counted_and_what_has_no_auc_is_refused() -> None:
    labels, scores = scored("multilabel")
    labels[:, 2] = 0
    kept = [0, 1, 3, 4]
    row = metrics.classification_metrics("multilabel", labels, scores)
    assert row["num_labels_skipped"] == 1
    assert math.isnan(metrics.per_label_auc(labels, scores)[2])
    assert row["auc"] == pytest.approx(roc_auc_score(labels[:, kept], scores[:, kept]))
    assert row["average_precision"] == pytest.approx(average_precision_score(labels[:, kept], scores[:, kept]))
    for labels, scores, message in (
        ([0, 1], [0.1, 0.2, 0.3], "must be"),
        ([0, 1], [0.1, math.nan], "finite"),
        ([0, 0], [0.1, 0.2], "AUC needs both classes among the labels, got only 0"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.auc_score(labels, scores)


def test_a_weight_equals_that_many_copies_and_a_tie_is_half_a_win() -> None:
    labels, scores = scored("binary")
    weights = np.random.default_rng(0).integers(0, 4, (20, len(labels)))
    slow = [roc_auc_score(np.repeat(labels, w), np.repeat(scores, w)) for w in weights]
    np.testing.assert_allclose(weighted_auc(labels == 1, scores, weights), slow, rtol=0, atol=1e-14)
    right = [(np.repeat(labels, w) == (np.repeat(scores, w) > 0.5)).mean() for w in weights]
    np.testing.assert_allclose(metrics.weighted_accuracy(labels, scores, weights), right, rtol=0, atol=1e-14)
    assert np.isnan(weighted_auc(labels == 1, scores, labels[None])).all()  # nothing but positives
    assert metrics.auc_score([0, 1, 1], [0.5, 0.5, 0.9]) == 0.75


def test_the_threshold_maximises_youden_midway_between_the_classes_or_above_all_that_is_no_better_than_chance() -> None:
    labels, scores = scored("binary")
    best = sum(metrics.sensitivity_and_specificity(labels, scores, metrics.threshold_from(labels, scores)))
    each = [sum(metrics.sensitivity_and_specificity(labels, scores, c)) for c in [*np.unique(scores), 2.0]]
    assert best == pytest.approx(max(each), abs=1e-12)
    assert metrics.threshold_from([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx([0.4])
    assert metrics.sensitivity_and_specificity([0, 1, 1], [0.3, 0.4, 0.1], [0.4]) == (0.5, 1.0)
    limit = metrics.threshold_from([1, 1, 0, 0], [0.1, 0.2, 0.6, 0.9])
    assert metrics.sensitivity_and_specificity([1, 0], [0.5, 0.9], limit) == (0.0, 1.0)


def test_calibration_error_of_hand_made_bins_adds_up_in_a_diagram_whose_intervals_are_wilsons() -> None:
    # Bin of .1: frequency .5, gap .4, 2 of 4 images. Bin of .9: frequency 1, gap .1, 2 of 4 images.
    assert metrics.expected_calibration_error([0, 1, 1, 1], [0.1, 0.1, 0.9, 0.9]) == pytest.approx(0.25)
    # Multi-class looks at the chosen class only: confidence .6, right half of the time.
    assert metrics.expected_calibration_error([0, 1], [[0.6, 0.3, 0.1]] * 2) == pytest.approx(0.1)
    (labels, scores), patients = scored("binary"), np.arange(200) // 4
    bins = metrics.reliability(labels, scores[None], patients)
    gaps = (bins["probability"] - bins["frequency"]).abs() * bins["count"] / 200
    assert gaps.sum() == pytest.approx(metrics.expected_calibration_error(labels, scores))
    assert bins["count"].sum() == 200 and (bins["units"] <= bins["count"]).all() and bins["units"].sum() < 200
    bins = metrics.reliability(np.arange(40) < 10, np.full((2, 40), 0.3))
    expected = binomtest(10, 40).proportion_ci(method="wilson")
    assert bins.loc[0, ["low", "high"]].tolist() == pytest.approx([expected.low, expected.high], abs=1e-6)
    assert bins.loc[0, "count"] == 40


def test_std_is_1_where_isotropic_rank_an_entropy_alignment_and_uniformity_the_papers_and_a_collapse_is_seen() -> None:
    h = np.random.default_rng(0).normal(size=(20_000, 8)) * 3
    assert metrics.feature_std(h) == pytest.approx(1, abs=0.01)
    assert metrics.projection_std(h[:3]) == pytest.approx(h[:3].std(axis=0, ddof=1).mean())
    h = np.ones((50, 8)) * 0.3
    for measure in (metrics.feature_std, metrics.projection_std, metrics.effective_rank, metrics.uniformity):
        assert measure(h) == pytest.approx(0, abs=1e-12)
    assert metrics.alignment(h, h) == 0
    h = np.random.default_rng(1).normal(size=(40, 3))
    s = np.linalg.svd(h - h.mean(axis=0), compute_uv=False)
    p = s / s.sum()
    wide = np.hstack([h, np.zeros((40, 5))]) + 7.0  # neither empty dimensions nor the mean count
    assert metrics.effective_rank(wide) == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    a, b = np.random.default_rng(0).normal(size=(2, 60, 4))
    ua, ub = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b))
    distances = [((x - y) ** 2).sum() for x, y in zip(ua, ub, strict=True)]
    assert metrics.alignment(a, b) == pytest.approx(np.mean(distances))
    pairs = [((ua[i] - ua[:i]) ** 2).sum(axis=1) for i in range(1, len(ua))]
    assert metrics.uniformity(a) == pytest.approx(math.log(np.exp(-2 * np.concatenate(pairs)).mean()))
