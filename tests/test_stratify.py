"""Draws by class that keep patients whole."""

from itertools import pairwise

import numpy as np

from cxr_helpers.data.stratify import carve, choose_labelled


def test_labels_are_kept_by_class_never_lose_one_and_a_larger_fraction_keeps_all_of_a_smaller_one() -> None:
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    kept = [choose_labelled(labels, None, fraction, seed=3) for fraction in (0.01, 0.1, 0.5, 1.0)]
    for part, fraction in zip(kept, (0.01, 0.1, 0.5, 1.0), strict=True):
        assert np.bincount(labels[part]).tolist() == [max(1, round(fraction * n)) for n in (900, 90, 10)]
    assert all((small <= large).all() for small, large in pairwise(kept))
    assert not np.array_equal(kept[1], choose_labelled(labels, None, 0.1, seed=1))


def test_an_image_without_a_label_keeps_none_though_its_patient_does() -> None:
    labels, groups = np.arange(60) % 3 - 1, np.array([f"p{i // 3}" for i in range(60)])
    kept = choose_labelled(labels, groups, 0.5, seed=0)
    assert kept.sum() == 20 and (labels[kept] >= 0).all()


def test_a_fraction_is_one_of_images_in_whole_patients_however_many_a_patient_has() -> None:
    groups = np.repeat([f"p{i}" for i in range(40)], np.arange(40) + 1)
    kept = choose_labelled(np.zeros(820, np.int64), groups, 0.3, seed=0)
    assert set(groups[kept]).isdisjoint(groups[~kept])
    assert 0.3 * 820 <= kept.sum() < 0.3 * 820 + 40


def test_a_rare_label_of_a_multilabel_task_is_kept() -> None:
    labels = np.zeros((1000, 3), np.int64)
    labels[::2, 0] = labels[777, 2] = 1
    kept = choose_labelled(labels, None, 0.01, seed=0)
    assert labels[kept, 2].sum() == 1 and 10 <= kept.sum() <= 12


def test_a_carved_split_has_no_patient_in_common_with_the_rest_and_its_share_of_each_class() -> None:
    labels = np.repeat([0, 1], [600, 200])
    groups = np.array([f"{label}-{i // 7}" for i, label in enumerate(labels)])
    taken = carve(labels, groups, 0.2, seed=0)
    assert set(groups[taken]).isdisjoint(groups[~taken])
    assert 0.17 <= taken[:600].mean() <= 0.2 and 0.15 <= taken[600:].mean() <= 0.2


def test_a_class_of_one_patient_stays_whole_and_one_of_two_is_parted() -> None:
    labels, groups = np.repeat([0, 1], [10, 10]), np.array(["p"] * 10 + ["q"] * 9 + ["r"])
    assert carve(labels, groups, 0.2, seed=0).tolist() == [False] * 19 + [True]
