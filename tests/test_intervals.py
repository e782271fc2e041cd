"""The bootstrap against resamples written out image by image, and Holm's correction against his steps."""

import math

import numpy as np
import pytest
from samples import scored
from sklearn.metrics import roc_auc_score

from cxr_helpers import probe
from cxr_helpers.probe import Resampled, SeedSpread, auc_score, bootstrap_ci, difference_of, paired_bootstrap

LABELS, SCORES = scored("binary")
GROUPS = np.random.default_rng(5).integers(0, 40, 120).astype(str)


def materialised(labels: np.ndarray, scores: np.ndarray, num: int) -> np.ndarray:
    """Slow reference: every resample of patients built image by image, macro over the labels that have both classes."""
    names = np.unique(GROUPS)
    values = []
    for patients in np.random.default_rng(7).integers(0, len(names), (num, len(names))):
        rows = np.concatenate([np.flatnonzero(names[p] == GROUPS) for p in patients])
        y, s = labels[rows].reshape(len(rows), -1), scores[rows].reshape(len(rows), -1)
        values.append(np.mean([roc_auc_score(a, b) for a, b in zip(y.T, s.T, strict=True) if np.ptp(a)]))
    return np.array(values)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_an_interval_is_that_of_materialised_resamples(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = scored(task, 120, seed=2)
    if task == "multilabel":
        labels[:, 0] = np.arange(120) < 2  # some resamples lack its positives
        monkeypatch.setattr(probe.intervals, "CHUNK_CELLS", 700)  # in blocks
    found = bootstrap_ci(labels, scores, GROUPS, num_resamples=50, seed=7)
    assert found.estimate == pytest.approx(auc_score(labels, scores), abs=1e-14)
    slow = materialised(labels, scores, 50)
    drawn = probe.resample(labels, scores, GROUPS, num_resamples=50, seed=7).draws[:, 0]
    np.testing.assert_allclose(drawn, slow, atol=1e-13)
    assert [found.low, found.high] == pytest.approx(list(np.quantile(slow, [0.025, 0.975])), abs=1e-13)
    assert (found.num_groups, found.num_images) == (len(np.unique(GROUPS)), 120)


def test_an_interval_of_several_seeds_is_of_their_mean_metric_and_a_band_holds_that_of_each_point() -> None:
    other = SCORES + 0.2 * np.random.default_rng(4).normal(size=len(SCORES))
    found = bootstrap_ci(LABELS, np.stack([SCORES, other]), num_resamples=100)
    assert found.estimate == pytest.approx((auc_score(LABELS, SCORES) + auc_score(LABELS, other)) / 2)
    alone = [bootstrap_ci(LABELS, scores, num_resamples=100) for scores in (SCORES, other)]
    assert min(one.low for one in alone) < found.low < max(one.low for one in alone)
    labels, scores = scored("multilabel")
    stack = np.stack([scores, scored("multilabel", seed=1)[1]])
    band = probe.bootstrap_band(labels, stack, curve=probe.label_aucs, num_resamples=99)
    for i in (0, 4):
        interval = bootstrap_ci(labels[:, i], stack[:, :, i], num_resamples=99)
        found = (band.estimate[i], band.low[i], band.high[i])
        assert found == pytest.approx((interval.estimate, interval.low, interval.high), abs=1e-12)
    undefined = probe.bootstrap_band(LABELS, SCORES, curve=lambda y, s, w: np.full((len(w), 2), np.nan))
    assert np.isnan(undefined.low).all()


def test_accuracy_and_own_functions_serve_as_metric() -> None:
    labels, scores = scored("multiclass")
    found = bootstrap_ci(labels, scores, metric="accuracy")
    assert found.estimate == pytest.approx(probe.accuracy(labels, scores))
    half = 1.96 * math.sqrt(found.estimate * (1 - found.estimate) / len(labels))
    assert [found.low, found.high] == pytest.approx([found.estimate - half, found.estimate + half], abs=0.01)
    fives = bootstrap_ci(labels, scores, metric=lambda y, s, weights: np.full(len(weights), 5.0), num_resamples=9)
    assert (fives.low, fives.estimate, fives.high) == (5, 5, 5)


def test_what_makes_no_interval_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="metric must be one of auc, accuracy or a function, got 'f1'"):
        bootstrap_ci(LABELS, SCORES, metric="f1")
    with pytest.raises(ValueError, match="one patient per image, got 3 for 200"):
        bootstrap_ci(LABELS, SCORES, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"must be .*, got \[200\] and \[100\]"):
        bootstrap_ci(LABELS, np.zeros((3, 100)))
    with pytest.raises(ValueError, match="too few patients"):
        bootstrap_ci([0, 1], [0.2, 0.8], num_resamples=1, seed=0)


def drawn(*observed: float, sd: float = 0.01, seed: int = 0, own: float = 0.0, num: int = 4000) -> Resampled:
    """A metric of seeds that patients move together by `sd`, and each by itself by `own`."""
    rng = np.random.default_rng(seed)
    draws = np.array(observed) + sd * rng.normal(size=(num, 1)) + own * rng.normal(size=(num, len(observed)))
    return Resampled(np.array(observed), draws, 100, 100)


def test_a_paired_bootstrap_equals_materialised_resamples_is_0_for_identical_scores_and_p_is_never_zero() -> None:
    labels, scores = scored("binary", 120, seed=2)
    other = scores + 0.1 * np.random.default_rng(9).normal(size=120)
    for a, b in ((scores, other), (other, scores)):
        slow = materialised(labels, a, 100) - materialised(labels, b, 100)
        pair = paired_bootstrap(labels, a, b, GROUPS, num_resamples=100, seed=7)
        assert pair.difference == pytest.approx(auc_score(labels, a) - auc_score(labels, b))
        assert [pair.low, pair.high] == pytest.approx(list(np.quantile(slow, [0.025, 0.975])), abs=1e-13)
        beyond = [int((sign * slow >= 0).sum()) for sign in (1, -1)]
        assert min(beyond) > 0 and pair.p_value == pytest.approx(min(1, 2 * (1 + min(beyond)) / 101))
    pair = paired_bootstrap(LABELS, SCORES, SCORES, num_resamples=200)
    assert (pair.difference, pair.low, pair.high, pair.p_value) == (0, 0, 0, 1)
    assert paired_bootstrap(LABELS, LABELS, 1 - LABELS, num_resamples=300).p_value == pytest.approx(2 / 301)


@pytest.mark.parametrize("shift", [-0.03, -0.0275, 0.0, 0.0275, 0.03])
def test_p_is_below_five_hundredths_where_the_interval_leaves_0_out(shift: float) -> None:
    found = difference_of(drawn(0.9 + shift, own=0.014), drawn(0.9, seed=0))
    assert (found.low > 0 or found.high < 0) == (found.p_value < 0.05) == (abs(shift) > 0.028)


def test_the_spread_of_seeds_is_pooled_without_the_patients_and_widens_a_difference_by_students_t() -> None:
    pure, noisy, single = drawn(0.9, 0.94), drawn(0.9, 0.92, 0.94, own=0.01), drawn(0.7)
    assert probe.seed_spread([pure]) == (pytest.approx(0.0008), 1)
    variance, degrees = probe.seed_spread([pure, noisy, single])
    assert degrees == 3 and variance == pytest.approx((0.0008 + 2 * (0.0004 - 0.0001)) / 3, rel=0.05)
    assert probe.seed_spread([drawn(0.9, 0.9001, own=0.01)]) == (0, 1) and probe.seed_spread([single]) == (0, 0)
    fixed = drawn(0.9, sd=0), drawn(0.95, 0.95, sd=0)
    found = difference_of(*fixed, SeedSpread(0.0004, 4))
    half = 2.776445 * math.sqrt(0.0004 * (1 + 1 / 2))  # t quantile .975 with 4 degrees of freedom
    assert [found.low, found.high] == pytest.approx([-0.05 - half, -0.05 + half], abs=0.004)
    assert difference_of(*fixed, SeedSpread(0.0, 4)) == difference_of(*fixed)
    assert difference_of(*fixed, SeedSpread(0.0004, 4)) == found


@pytest.mark.parametrize("seed", range(3))
def test_holms_correction_rejects_what_his_steps_reject(seed: int) -> None:
    p = np.random.default_rng(seed).choice([0.0005, 0.004, 0.01, 0.02, 0.03, 0.2, 0.9], size=9)  # with ties
    corrected = probe.holm(p)
    for level in (0.01, 0.05, 0.1, 0.5):
        rejected: set[int] = set()
        for step, i in enumerate(np.argsort(p, kind="stable")):  # from the smallest; the first that fails ends it
            if p[i] > level / (len(p) - step):
                break
            rejected.add(int(i))
        assert {i for i, value in enumerate(corrected) if value <= level} == rejected
    assert (corrected >= p).all() and (corrected <= 1).all()
    assert probe.holm([]).shape == (0,) and probe.holm([0.03]).tolist() == [0.03]
    for wrong in ([0.1, 1.2], [float("nan")], [[0.1]]):
        with pytest.raises(ValueError, match="numbers from 0 to 1"):
            probe.holm(wrong)
