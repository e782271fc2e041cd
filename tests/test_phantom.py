"""What the embedded data sets promise: patients, masks, and how little brightness tells."""

import numpy as np
import pytest
import torch

from cxr_helpers.data import Dataset, load_dataset
from cxr_helpers.data.phantom import draw_films


@pytest.fixture(scope="module")
def films() -> Dataset:
    return load_dataset("phantom", 64, max_train_images=500)


@pytest.mark.parametrize(
    ("name", "size", "means", "positives"),
    [
        ("phantom", 64, [99.80, 139.87, 122.00, 121.20], 13),
        ("phantom_multilabel", 64, [119.97, 145.27, 103.74, 129.43], 20),
    ],
)
def test_images_are_what_they_were(name: str, size: int, means: list[float], positives: int) -> None:
    test = load_dataset(name, size, max_train_images=20, max_eval_images=20).test
    assert test.images[:4].double().mean((1, 2, 3)).tolist() == pytest.approx(means, abs=0.02)
    assert int(test.labels.sum()) == positives


def test_no_patient_is_in_two_splits_and_a_label_is_one_exactly_where_its_mask_is_not_empty(films: Dataset) -> None:
    patients = [set(split.groups) for split in films.splits.values() if split.groups is not None]
    assert len(set.union(*patients)) == sum(map(len, patients)) and len(films.test) > 2 * len(patients[2])
    for split in (films.test, draw_films("phantom_multilabel", "train", 56, np.arange(200))):
        assert torch.equal(split.masks.flatten(2).any(2), split.labels.reshape(len(split), -1) == 1)  # type: ignore[union-attr]


def test_brightness_and_contrast_alone_do_not_tell_pneumonia(films: Dataset) -> None:
    images, labels = films.test.images.double(), films.test.labels
    for scores in (images.mean((1, 2, 3)), images.std((1, 2, 3))):
        wins = float((scores[labels == 1][:, None] > scores[labels == 0][None]).double().mean())
        assert 0.35 < wins < 0.65
