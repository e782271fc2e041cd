"""Metrics against scikit-learn, MedMNIST and slow loops; bootstrap against materialised resamples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from cxr_helpers import probe as metrics
from cxr_helpers.data import Task
from cxr_helpers.probe import intervals

RNG = np.random.default_rng(0)


def binary(num: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(num) < 0.4).astype(np.int64)
    return labels, np.clip(rng.random(num) * 0.7 + 0.3 * labels, 0, 1).round(2)  # rounded: many ties


def multilabel(num: int = 300, num_labels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = (rng.random((num, num_labels)) < np.linspace(0.05, 0.5, num_labels)).astype(np.int64)
    return labels, (rng.random((num, num_labels)) * 0.8 + 0.2 * labels).round(2)


def multiclass(num: int = 300, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, num_classes, num)
    scores = rng.dirichlet(np.ones(num_classes), num)
    scores[np.arange(num), labels] += 0.2
    return labels, scores / scores.sum(axis=1, keepdims=True)


# ---- discrimination


def test_auc_equals_sklearn_for_every_task() -> None:
    labels, scores = binary()
    assert metrics.auc_score(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-14)
    labels, scores = multilabel()
    assert metrics.auc_score(labels, scores) == pytest.approx(roc_auc_score(labels, scores, average="macro"), abs=1e-14)
    labels, scores = multiclass()
    expected = roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert metrics.auc_score(labels, scores) == pytest.approx(expected, abs=1e-14)


def test_auc_counts_a_tie_as_half_a_win() -> None:
    assert metrics.auc_score([0, 1], [0.5, 0.5]) == 0.5
    assert metrics.auc_score([0, 1, 1], [0.5, 0.5, 0.9]) == 0.75


def test_a_label_without_both_classes_is_skipped_and_counted() -> None:
    labels, scores = multilabel()
    labels[:, 2] = 0
    kept = [0, 1, 3, 4]
    assert math.isnan(metrics.per_label_auc(labels, scores)[2])
    assert metrics.auc_score(labels, scores) == pytest.approx(
        np.mean([roc_auc_score(labels[:, i], scores[:, i]) for i in kept])
    )
    assert metrics.average_precision(labels, scores) == pytest.approx(
        np.mean([average_precision_score(labels[:, i], scores[:, i]) for i in kept])
    )
    row = metrics.classification_metrics("multilabel", labels, scores)
    assert row["num_labels_skipped"] == 1
    assert math.isnan(row["medmnist_auc"])


@pytest.mark.parametrize("labels", [np.zeros(5, int), np.ones(5, int)])
def test_a_single_class_gives_one_clear_sentence(labels: np.ndarray) -> None:
    scores = np.linspace(0, 1, 5)
    for call in (metrics.auc_score, metrics.average_precision, intervals.bootstrap_ci):
        with pytest.raises(ValueError, match=f"AUC needs both classes among the labels, got only {labels[0]}"):
            call(labels, scores)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1, 0.2, 0.3], "must be"),
        ([], [], "must be"),
        ([0, -1], [0.1, 0.2], "without a label"),
        ([0, 3], [[0.5, 0.5], [0.1, 0.9]], "0 to 1, got 0 to 3"),
        ([0, 1], [0.1, math.nan], "finite"),
    ],
)
def test_malformed_input_is_refused(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.auc_score(labels, scores)


def test_a_weight_equals_that_many_copies() -> None:
    labels, scores = binary()
    weights = RNG.integers(0, 4, (20, len(labels)))
    fast = metrics.weighted_auc(labels == 1, scores, weights)
    slow = [roc_auc_score(np.repeat(labels, w), np.repeat(scores, w)) for w in weights]
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-14)
    right = [(np.repeat(labels, w) == (np.repeat(scores, w) > 0.5)).mean() for w in weights]
    np.testing.assert_allclose(intervals.weighted_accuracy(labels, scores, weights), right, rtol=0, atol=1e-14)


def test_weights_on_one_class_alone_give_nan() -> None:
    labels, scores = binary()
    assert np.isnan(metrics.weighted_auc(labels == 1, scores, labels[None])).all()


# ---- decisions


def test_metrics_of_every_task_equal_sklearn_and_medmnist() -> None:
    cases: dict[Task, tuple[np.ndarray, np.ndarray]]
    cases = {"binary": binary(), "multilabel": multilabel(), "multiclass": multiclass()}
    for task, (labels, scores) in cases.items():
        row = metrics.classification_metrics(task, labels, scores, threshold=metrics.threshold_from(labels, scores))
        assert row["medmnist_auc"] == pytest.approx(row["auc"], abs=1e-12)
        assert row["medmnist_acc"] == pytest.approx(row["accuracy"], abs=1e-12)
        assert ("sensitivity" in row) == (task != "multiclass")
        assert all(isinstance(v, float) and math.isfinite(v) for v in row.values())
    labels, scores = multiclass()
    row = metrics.classification_metrics("multiclass", labels, scores)
    assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, scores.argmax(axis=1)))
    labels, scores = multilabel()
    expected = np.mean([balanced_accuracy_score(labels[:, i], scores[:, i] > 0.5) for i in range(5)])
    assert metrics.classification_metrics("multilabel", labels, scores)["balanced_accuracy"] == pytest.approx(expected)


def test_the_threshold_maximises_youden_over_every_possible_threshold() -> None:
    labels, scores = binary()
    chosen = metrics.threshold_from(labels, scores)
    best = sum(metrics.sensitivity_and_specificity(labels, scores, chosen))
    candidates = np.concatenate([np.unique(scores), [2.0]])
    assert best == pytest.approx(
        max(sum(metrics.sensitivity_and_specificity(labels, scores, c)) for c in candidates), abs=1e-12
    )


def test_the_threshold_lies_midway_between_the_classes() -> None:
    assert metrics.threshold_from([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx([0.4])
    assert metrics.sensitivity_and_specificity([0, 1, 1], [0.3, 0.5, 0.1], [0.4]) == (0.5, 1.0)
    assert metrics.sensitivity_and_specificity([0, 1, 1], [0.4, 0.4, 0.1], [0.4]) == (0.5, 0.0)  # at it is above it


def test_scores_no_better_than_chance_call_nothing_positive() -> None:
    limit = metrics.threshold_from([1, 1, 0, 0], [0.1, 0.2, 0.6, 0.9])
    assert limit[0] > 0.9
    assert metrics.sensitivity_and_specificity([1, 0], [0.5, 0.9], limit) == (0.0, 1.0)


def test_calibration_error_of_hand_made_bins() -> None:
    # Bin of .1: frequency .5, gap .4, 2 of 4 images. Bin of .9: frequency 1, gap .1, 2 of 4 images.
    assert metrics.expected_calibration_error([0, 1, 1, 1], [0.1, 0.1, 0.9, 0.9]) == pytest.approx(0.25)
    assert metrics.expected_calibration_error([0, 1], [0.0, 1.0]) == 0.0
    # Multi-class looks at the chosen class only: confidence .6, right half of the time.
    scores = [[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]]
    assert metrics.expected_calibration_error([0, 1], scores) == pytest.approx(0.1)


# ---- bootstrap


def materialised(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Slow reference: every resample built image by image, scored by scikit-learn, macro over usable labels."""
    names = np.unique(groups)
    drawn = np.random.default_rng(seed).integers(0, len(names), (num, len(names)))
    values = []
    for patients in drawn:
        rows = np.concatenate([np.flatnonzero(groups == names[p]) for p in patients])
        y, s = labels[rows].reshape(len(rows), -1), scores[rows].reshape(len(rows), -1)
        usable = [i for i in range(y.shape[1]) if 0 < y[:, i].sum() < len(y)]
        values.append(np.mean([roc_auc_score(y[:, i], s[:, i]) for i in usable]))
    return np.array(values)


@pytest.mark.parametrize("make", [binary, multilabel])
def test_bootstrap_equals_materialised_resamples(make) -> None:  # type: ignore[no-untyped-def]
    labels, scores = make(120)
    groups = np.random.default_rng(5).integers(0, 40, 120).astype(str)
    slow = materialised(labels, scores, groups, 50, seed=7)
    interval = intervals.bootstrap_ci(labels, scores, groups, num_resamples=50, seed=7)
    assert interval.estimate == pytest.approx(metrics.auc_score(labels, scores), abs=1e-14)
    assert [interval.low, interval.high] == pytest.approx(list(np.quantile(slow, [0.025, 0.975])), abs=1e-13)
    assert (interval.num_groups, interval.num_images) == (len(np.unique(groups)), 120)


def test_the_blocks_of_a_bootstrap_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = multilabel(100)
    whole = intervals.bootstrap_ci(labels, scores, num_resamples=101)
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 700)
    assert intervals.bootstrap_ci(labels, scores, num_resamples=101) == whole


def test_duplicated_images_of_a_patient_leave_the_clustered_interval_and_narrow_the_other() -> None:
    labels, scores = binary(100)
    single = intervals.bootstrap_ci(labels, scores, np.arange(100), num_resamples=300)
    twice = [np.repeat(a, 4) for a in (labels, scores, np.arange(100))]
    clustered = intervals.bootstrap_ci(*twice, num_resamples=300)
    by_image = intervals.bootstrap_ci(*twice[:2], num_resamples=300)
    assert (clustered.estimate, clustered.low, clustered.high) == (single.estimate, single.low, single.high)
    assert by_image.high - by_image.low < 0.7 * (clustered.high - clustered.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth = 0.5 * (1 + math.erf(1 / 2))  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    hits = 0
    for seed in range(100):
        patient = np.repeat(rng.normal(size=60), 3) * math.sqrt(0.8)  # three images of a patient look alike
        labels = np.repeat(np.arange(60) % 2, 3)
        scores = patient + rng.normal(size=180) * math.sqrt(0.2) + labels
        interval = intervals.bootstrap_ci(labels, scores, np.repeat(np.arange(60), 3), num_resamples=200, seed=seed)
        hits += interval.low <= truth <= interval.high
    assert 85 <= hits <= 99


def test_an_interval_of_several_seeds_is_of_their_mean_metric() -> None:
    labels, scores = binary()
    other = np.clip(scores + np.random.default_rng(1).normal(size=len(scores)) * 0.2, 0, 1)
    interval = intervals.bootstrap_ci(labels, np.stack([scores, other]), num_resamples=20)
    expected = (metrics.auc_score(labels, scores) + metrics.auc_score(labels, other)) / 2
    assert interval.estimate == pytest.approx(expected)
    assert interval.num_seeds == 2


def test_accuracy_and_own_functions_serve_as_metric() -> None:
    labels, scores = multiclass()
    interval = intervals.bootstrap_ci(labels, scores, metric="accuracy", num_resamples=200)
    assert interval.estimate == pytest.approx(metrics.accuracy(labels, scores))
    assert interval.low < interval.estimate < interval.high
    same = intervals.bootstrap_ci(labels, scores, metric=intervals.weighted_accuracy, num_resamples=200)
    assert same == interval
    with pytest.raises(ValueError, match="metric must be one of auc, accuracy or a function, got 'f1'"):
        intervals.bootstrap_ci(labels, scores, metric="f1")


def test_identical_scores_differ_by_nothing_with_p_one() -> None:
    labels, scores = binary()
    pair = intervals.paired_bootstrap(labels, scores, scores, num_resamples=200)
    assert (pair.difference, pair.low, pair.high, pair.p_value) == (0, 0, 0, 1)


def test_a_paired_difference_is_antisymmetric_and_p_is_never_zero() -> None:
    labels, scores = binary()
    noise = np.random.default_rng(4).random(len(labels))
    pair = intervals.paired_bootstrap(labels, scores, noise, num_resamples=300)
    back = intervals.paired_bootstrap(labels, noise, scores, num_resamples=300)
    assert pair.difference == -back.difference > 0
    assert [pair.low, pair.high] == pytest.approx([-back.high, -back.low])
    assert pair.p_value == back.p_value == pytest.approx(1 / 301)


def test_pairing_narrows_the_interval_of_two_similar_models() -> None:
    labels, scores = binary()
    other = np.clip(scores + np.random.default_rng(4).normal(size=len(labels)) * 0.02, 0, 1)
    pair = intervals.paired_bootstrap(labels, scores, other, num_resamples=300)
    alone = intervals.bootstrap_ci(labels, scores, num_resamples=300)
    assert pair.high - pair.low < 0.5 * (alone.high - alone.low)
    assert pair.p_value > 0.01


def test_a_paired_bootstrap_equals_materialised_resamples() -> None:
    labels, scores = binary(120)
    other = scores + 0.1 * np.random.default_rng(9).normal(size=120)
    groups = np.random.default_rng(5).integers(0, 40, 120).astype(str)
    for a, b in ((scores, other), (other, scores)):
        slow = materialised(labels, a, groups, 100, seed=7) - materialised(labels, b, groups, 100, seed=7)
        observed = metrics.auc_score(labels, a) - metrics.auc_score(labels, b)
        pair = intervals.paired_bootstrap(labels, a, b, groups, num_resamples=100, seed=7)
        assert pair.difference == pytest.approx(observed)
        assert [pair.low, pair.high] == pytest.approx(list(np.quantile(slow, [0.025, 0.975])), abs=1e-13)
        beyond = [int((sign * (slow - observed) >= abs(observed) - 1e-12).sum()) for sign in (1, -1)]
        assert min(beyond) > 0  # p looks at both sides
        assert pair.p_value == pytest.approx((1 + sum(beyond)) / 101)


def test_each_side_draws_its_own_seeds_in_every_resample() -> None:
    """Two seeds a side that measure 0 and 1: a difference of 1 in one resample of 16, of -1 in another."""
    seeds = np.array([np.zeros(10), np.ones(10)])
    pair = intervals.paired_bootstrap(
        np.arange(10) % 2,
        seeds,
        seeds,
        resample_seeds=True,
        metric=lambda labels, scores, weights: np.full(len(weights), scores[0]),
    )
    assert (pair.low, pair.difference, pair.high) == (-1, 0, 1)
    assert pair.p_value == 1


def test_resampling_the_seeds_widens_the_interval_of_a_noisy_method() -> None:
    labels, scores = binary()
    rng = np.random.default_rng(6)
    noisy = np.stack([scores + sd * rng.normal(size=len(labels)) for sd in (0.0, 0.3, 1.0)])
    fixed = intervals.paired_bootstrap(labels, noisy, scores, num_resamples=400)
    drawn = intervals.paired_bootstrap(labels, noisy, scores, num_resamples=400, resample_seeds=True)
    assert fixed.difference == drawn.difference
    assert fixed.num_seeds == (3, 1)
    assert drawn.high - drawn.low > 1.2 * (fixed.high - fixed.low)


@pytest.mark.parametrize("seed", range(5))
def test_holms_correction_rejects_what_his_steps_reject(seed: int) -> None:
    p = np.random.default_rng(seed).choice([0.0005, 0.004, 0.01, 0.02, 0.03, 0.2, 0.9], size=9)  # with ties
    corrected = metrics.holm(p)
    for level in (0.01, 0.05, 0.1, 0.5):
        rejected: set[int] = set()
        for step, i in enumerate(np.argsort(p, kind="stable")):  # from the smallest; the first that fails ends it
            if p[i] > level / (len(p) - step):
                break
            rejected.add(int(i))
        assert {i for i, value in enumerate(corrected) if value <= level} == rejected
    assert (corrected >= p).all() and (corrected <= 1).all()
    assert metrics.holm([]).shape == (0,) and metrics.holm([0.03]).tolist() == [0.03]


@pytest.mark.parametrize("values", [[0.1, 1.2], [-0.1], [float("nan")], [[0.1]]])
def test_what_are_no_p_values_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        metrics.holm(values)


def test_groups_of_another_length_are_refused() -> None:
    labels, scores = binary()
    with pytest.raises(ValueError, match="one patient per image, got 3 for 200"):
        intervals.bootstrap_ci(labels, scores, ["a", "b", "c"])


def test_mean_and_sd_are_those_of_a_sample() -> None:
    assert intervals.mean_and_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert math.isnan(intervals.mean_and_sd([1.0])[1])


# ---- representations


def test_a_collapsed_representation_is_seen_by_every_measure() -> None:
    h = np.ones((50, 8)) * 0.3
    assert metrics.feature_std(h) == pytest.approx(0, abs=1e-12)
    assert metrics.projection_std(h) == pytest.approx(0, abs=1e-12)
    assert metrics.effective_rank(h) == 0
    assert metrics.uniformity(h) == pytest.approx(0, abs=1e-12)
    assert metrics.alignment(h, h) == 0


def test_an_isotropic_representation_has_std_one_and_full_rank() -> None:
    h = np.random.default_rng(0).normal(size=(20_000, 8)) * 3
    assert metrics.feature_std(h) == pytest.approx(1, abs=0.01)
    assert metrics.projection_std(h) == pytest.approx(3, abs=0.05)
    assert metrics.projection_std([[0.0, 1.0], [2.0, 1.0]]) == pytest.approx(math.sqrt(2) / 2)
    assert metrics.effective_rank(h) == pytest.approx(8, abs=0.01)


def test_effective_rank_counts_equal_directions() -> None:
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 3)))[0]
    basis -= basis.mean(axis=0)
    h = np.linalg.qr(basis)[0] @ np.random.default_rng(1).normal(size=(3, 3))
    s = np.linalg.svd(h, compute_uv=False)
    p = s / s.sum()
    wide = np.hstack([h, np.zeros((40, 5))]) + 7.0  # neither empty dimensions nor the mean count
    assert metrics.effective_rank(wide) == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    assert 1 < metrics.effective_rank(wide) <= 3


def test_alignment_and_uniformity_equal_the_papers_loops() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(1100, 4)), rng.normal(size=(1100, 4))  # above the block of 1024 rows
    ua, ub = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b))
    assert metrics.alignment(a, b) == pytest.approx(
        np.mean([((x - y) ** 2).sum() for x, y in zip(ua, ub, strict=True)])
    )
    pairs = [((ua[i] - ua[:i]) ** 2).sum(axis=1) for i in range(1, len(ua))]
    assert metrics.uniformity(a) == pytest.approx(math.log(np.exp(-2 * np.concatenate(pairs)).mean()))
