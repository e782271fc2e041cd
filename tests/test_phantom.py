"""What the embedded data sets promise: patients, masks, and how little brightness tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cxr_helpers.data import PHANTOMS, Dataset, load_dataset
from cxr_helpers.data.phantom import draw_films


@pytest.fixture(scope="module")
def films() -> Dataset:
    return load_dataset("phantom", 64, max_train_images=500)


@pytest.mark.parametrize(
    ("name", "means", "positives"),
    [
        ("phantom", [99.80, 139.87, 122.00, 121.20], 13),
        ("phantom_multilabel", [119.97, 145.27, 103.74, 129.43], 20),
    ],
)
def test_images_are_what_they_were(name: str, means: list[float], positives: int) -> None:
    test = load_dataset(name, 64, max_train_images=20, max_eval_images=20).test
    assert test.images[:4].double().mean((1, 2, 3)).tolist() == pytest.approx(means, abs=0.02)
    assert int(test.labels.sum()) == positives


@pytest.mark.parametrize("variant", PHANTOMS)
def test_a_few_images_drawn_alone_are_those_of_the_whole_split(variant: str) -> None:
    rows = np.array([0, 3, 17, 40, 119, 249])
    whole, few = draw_films(variant, "val", 32, np.arange(250)).take(rows), draw_films(variant, "val", 32, rows)
    assert torch.equal(whole.images, few.images) and torch.equal(whole.labels, few.labels)
    assert np.array_equal(whole.groups, few.groups) and torch.equal(whole.masks, few.masks)  # type: ignore[arg-type]


def test_no_patient_is_in_two_splits_and_patients_have_several_films(films: Dataset) -> None:
    patients = [set(split.groups) for split in films.splits.values() if split.groups is not None]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert len(films.test) > 2 * len(patients[2])


def test_a_label_is_one_exactly_where_its_mask_is_not_empty(films: Dataset) -> None:
    for split in (films.test, draw_films("phantom_multilabel", "train", 56, np.arange(200))):
        assert split.masks is not None
        assert torch.equal(split.masks.flatten(2).any(2), split.labels.reshape(len(split), -1) == 1)


def test_brightness_and_contrast_alone_do_not_tell_pneumonia(films: Dataset) -> None:
    images, labels = films.test.images.double(), films.test.labels
    for scores in (images.mean((1, 2, 3)), images.std((1, 2, 3))):
        wins = float((scores[labels == 1][:, None] > scores[labels == 0][None]).double().mean())
        assert 0.35 < wins < 0.65
