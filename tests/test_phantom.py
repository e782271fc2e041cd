"""What the embedded data sets promise: patients, masks, boxes, and how little brightness tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cxr_helpers.data import PHANTOMS, Dataset, Split, load_dataset
from cxr_helpers.data.phantom import draw_films, draw_shapes


@pytest.fixture(scope="module")
def films() -> Dataset:
    return load_dataset("phantom", 64, max_train_images=500)


@pytest.fixture(scope="module")
def multilabel() -> Split:
    return load_dataset("phantom_multilabel", 56, max_train_images=400, max_eval_images=1).train


@pytest.mark.parametrize(
    ("name", "size", "means", "positives"),
    [
        ("phantom", 64, [99.80, 139.87, 122.00, 121.20], 13),
        ("phantom_multilabel", 64, [119.97, 145.27, 103.74, 129.43], 20),
        ("phantom_shapes", 32, [111.75, 121.67, 120.13, 100.90], 78),
    ],
)
def test_images_are_what_they_were(name: str, size: int, means: list[float], positives: int) -> None:
    test = load_dataset(name, size, max_train_images=20, max_eval_images=20).test
    assert test.images[:4].double().mean((1, 2, 3)).tolist() == pytest.approx(means, abs=0.02)
    assert int(test.labels.sum()) == positives


@pytest.mark.parametrize("variant", PHANTOMS)
def test_a_few_images_drawn_alone_are_those_of_the_whole_split(variant: str) -> None:
    rows = np.array([0, 3, 17, 40, 119, 249])
    draw = draw_shapes if variant == "phantom_shapes" else draw_films
    whole, few = draw(variant, "val", 32, np.arange(250)).take(rows), draw(variant, "val", 32, rows)
    assert torch.equal(whole.images, few.images) and torch.equal(whole.labels, few.labels)
    if whole.masks is not None and few.masks is not None:
        assert np.array_equal(whole.groups, few.groups) and torch.equal(whole.masks, few.masks)  # type: ignore[arg-type]
        assert all(map(torch.equal, whole.boxes or (), few.boxes or ()))


def test_no_patient_is_in_two_splits_and_patients_have_several_films(films: Dataset) -> None:
    patients = [set(split.groups) for split in films.splits.values() if split.groups is not None]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert len(films.test) > 2 * len(patients[2])


def test_a_label_is_one_exactly_where_its_mask_is_not_empty(films: Dataset, multilabel: Split) -> None:
    for split in (*films.splits.values(), multilabel):
        assert split.masks is not None
        assert torch.equal(split.masks.flatten(2).any(2), split.labels.reshape(len(split), -1) == 1)


def test_boxes_enclose_their_masks_tightly(multilabel: Split) -> None:
    assert multilabel.masks is not None and multilabel.boxes is not None and multilabel.box_labels is not None
    for mask, boxes, index in zip(multilabel.masks[:60], multilabel.boxes, multilabel.box_labels, strict=False):
        assert index.unique().tolist() == mask.flatten(1).any(1).nonzero().flatten().tolist()
        for label in index.unique():
            rows, columns = mask[label].nonzero(as_tuple=True)
            own, covered = boxes[index == label], torch.zeros_like(mask[label])
            outer = [*own[:, :2].min(0).values.tolist(), *own[:, 2:].max(0).values.tolist()]
            assert outer == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            for x0, y0, x1, y1 in own.int().tolist():
                covered[y0:y1, x0:x1] = True
            assert covered[mask[label]].all()


def test_brightness_and_contrast_alone_do_not_tell_pneumonia_nor_mean_colour_the_shape(films: Dataset) -> None:
    images, labels = films.test.images.double(), films.test.labels
    for scores in (images.mean((1, 2, 3)), images.std((1, 2, 3))):
        wins = float((scores[labels == 1][:, None] > scores[labels == 0][None]).double().mean())
        assert 0.35 < wins < 0.65
    train, test = (draw_shapes("phantom_shapes", split, 28, np.arange(1000)) for split in ("train", "test"))
    colour, query = (split.images.double().mean((2, 3)) for split in (train, test))
    nearest: NDArray[np.int64] = torch.cdist(query, colour).argmin(1).numpy()
    assert (train.labels[nearest] == test.labels).double().mean() < 0.2
