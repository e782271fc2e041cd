"""What the embedded data sets promise: seeds, patients, masks, boxes, and how little brightness tells."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from cxr_helpers.data.phantom import (
    PHANTOM_VARIANTS,
    PhantomData,
    PhantomSplit,
    _chest_split,
    _shapes_split,
    phantom_arrays,
    phantom_counts,
)

_LABELS = ("effusion", "cardiomegaly", "nodule", "consolidation", "pneumothorax")


FIRST = 500  # films of train


@pytest.fixture(scope="module")
def phantom() -> PhantomData:
    return phantom_arrays("phantom", 64, rows={"train": np.arange(FIRST)})


@pytest.fixture(scope="module")
def multilabel() -> PhantomSplit:
    return _chest_split("phantom_multilabel", "train", 300, 64, seed=0)


@pytest.fixture(scope="module")
def shapes() -> PhantomData:
    return phantom_arrays("phantom_shapes", 32)


def _auc(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    wins = scores[labels == 1][:, None] > scores[labels == 0][None, :]
    return max(wins.mean(), 1 - wins.mean())


def _arrays(split: PhantomSplit) -> list[NDArray[np.generic]]:
    stored = [
        split.images,
        split.labels,
        split.groups,
        split.masks,
        *(split.boxes or ()),
        *(split.box_labels or ()),
    ]
    return [array for array in stored if array is not None]


@pytest.mark.parametrize("variant", ["phantom", "phantom_multilabel"])
def test_the_same_seed_gives_the_same_films_and_another_seed_other_ones(variant: str) -> None:
    first, again = (
        _chest_split(variant, "test", 24, 32, seed=3),
        _chest_split(variant, "test", 24, 32, seed=3),
    )
    assert all(np.array_equal(a, b) for a, b in zip(_arrays(first), _arrays(again), strict=True))
    other = _chest_split(variant, "test", 24, 32, seed=4)
    assert np.abs(first.images.astype(int) - other.images).mean() > 5


def test_the_same_seed_gives_the_same_shapes_and_another_seed_other_ones() -> None:
    first, again, other = (_shapes_split("test", 50, 32, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.labels, again.labels)
    assert np.abs(first.images.astype(int) - other.images).mean() > 5


def test_a_split_drawn_alone_is_the_split_of_the_whole_data_set(phantom: PhantomData) -> None:
    alone = _chest_split("phantom", "val", phantom_counts("phantom")["val"], 64, seed=0)
    assert np.array_equal(alone.images, phantom.splits["val"].images)


@pytest.mark.parametrize("variant", PHANTOM_VARIANTS)
def test_a_few_images_drawn_alone_are_those_of_the_whole_split(variant: str) -> None:
    size, rows = 32, np.array([0, 3, 17, 40, 119, 249])
    draw = _shapes_split if variant == "phantom_shapes" else partial(_chest_split, variant)
    whole, few = draw("val", 250, size, 1), draw("val", 250, size, 1, rows)
    for a, b in ((whole.images, few.images), (whole.labels, few.labels), (whole.groups, few.groups)):
        assert a is b is None or np.array_equal(a[rows], b)
    if whole.masks is not None:
        assert np.array_equal(whole.masks[rows], few.masks)
        assert whole.boxes is not None and few.boxes is not None
        assert all(np.array_equal(whole.boxes[row], few.boxes[i]) for i, row in enumerate(rows))


def test_chest_splits_have_the_promised_shapes_and_types(phantom: PhantomData) -> None:
    assert (phantom.task, phantom.class_names) == ("binary", ("normal", "pneumonia"))
    assert list(phantom.splits) == ["train", "val", "test"]
    assert sum(phantom_counts("phantom").values()) >= 2000
    assert {**phantom_counts("phantom"), "train": FIRST} == {n: len(s.labels) for n, s in phantom.splits.items()}
    for split in phantom.splits.values():
        num = len(split.labels)
        assert split.masks is not None and split.groups is not None
        assert split.boxes is not None and split.box_labels is not None
        assert (split.images.shape, split.images.dtype) == ((num, 64, 64), np.uint8)
        assert (split.labels.shape, split.labels.dtype) == ((num,), np.int64)
        assert (split.masks.shape, split.masks.dtype) == ((num, 1, 64, 64), np.bool_)
        assert split.groups.shape == (num,) and len(split.boxes) == len(split.box_labels) == num
        assert all(boxes.dtype == np.float32 and boxes.shape[1:] == (4,) for boxes in split.boxes)


def test_shapes_have_the_promised_shapes_types_and_balance(shapes: PhantomData) -> None:
    assert shapes.task == "multiclass" and len(shapes.class_names) == 10
    for split in shapes.splits.values():
        num = len(split.labels)
        assert (split.images.shape, split.images.dtype) == ((num, 32, 32, 3), np.uint8)
        assert np.array_equal(np.bincount(split.labels), np.full(10, num // 10))
        assert split.groups is None and split.masks is None and split.boxes is None


def test_no_patient_is_in_two_splits_and_patients_have_several_films(phantom: PhantomData) -> None:
    patients = [set(split.groups) for split in phantom.splits.values() if split.groups is not None]
    assert len(set.union(*patients)) == sum(len(group) for group in patients)
    num_films = sum(len(split.labels) for split in phantom.splits.values())
    assert num_films > 2 * sum(len(group) for group in patients)


def test_films_of_one_patient_are_alike_but_not_equal(phantom: PhantomData) -> None:
    split = phantom.splits["train"]
    assert split.groups is not None
    small = split.images.reshape(-1, 16, 4, 16, 4).mean(axis=(2, 4)).reshape(len(split.labels), -1)
    films = (small - small.mean(axis=1, keepdims=True)) / small.std(axis=1, keepdims=True)
    distance = np.square(films[1:] - films[:-1]).mean(axis=1)
    same = split.groups[1:] == split.groups[:-1]
    assert distance[same].min() > 0
    assert np.median(distance[same]) < np.median(distance[~same])


def test_a_label_is_one_exactly_where_its_mask_is_not_empty(phantom: PhantomData, multilabel: PhantomSplit) -> None:
    for split in (*phantom.splits.values(), multilabel):
        assert split.masks is not None
        labels = split.labels.reshape(len(split.labels), -1)
        assert np.array_equal(split.masks.any(axis=(2, 3)), labels == 1)


@pytest.mark.parametrize("size", [28, 64, 100])
def test_boxes_enclose_their_masks_tightly(size: int) -> None:
    split = _chest_split("phantom_multilabel", "val", 60, size, seed=1)
    assert split.masks is not None and split.boxes is not None and split.box_labels is not None
    for mask, boxes, index in zip(split.masks, split.boxes, split.box_labels, strict=True):
        assert np.array_equal(np.unique(index), np.flatnonzero(mask.any(axis=(1, 2))))
        for label in np.unique(index):
            rows, columns = np.nonzero(mask[label])
            own = boxes[index == label]
            outer = [own[:, 0].min(), own[:, 1].min(), own[:, 2].max(), own[:, 3].max()]
            assert outer == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            covered = np.zeros_like(mask[label])
            for x0, y0, x1, y1 in own.astype(int):
                covered[y0:y1, x0:x1] = True
            assert covered[mask[label]].all()


def test_classes_are_balanced_and_findings_neither_rare_nor_common(phantom: PhantomData) -> None:
    for split in phantom.splits.values():
        assert 0.4 < split.labels.mean() < 0.6
    split = _chest_split("phantom_multilabel", "train", 1400, 56, 0, np.arange(600))
    assert ((split.labels.mean(axis=0) > 0.10) & (split.labels.mean(axis=0) < 0.35)).all()
    assert np.abs(np.corrcoef(split.labels.T) - np.eye(5)).max() < 0.12


@pytest.mark.parametrize("variant", ["phantom", "phantom_multilabel"])
def test_a_larger_film_shows_the_same_patient_and_findings(variant: str) -> None:
    small = _chest_split(variant, "test", 20, 56, seed=0)
    large = _chest_split(variant, "test", 20, 168, seed=0)
    assert small.masks is not None and large.masks is not None
    assert np.array_equal(small.labels, large.labels)
    shrunk = large.images.reshape(20, 56, 3, 56, 3).mean(axis=(2, 4))
    assert np.abs(shrunk - small.images).mean() < 5
    cover = large.masks.reshape(20, -1, 56, 3, 56, 3).mean(axis=(3, 5)) > 0.5
    assert (cover & small.masks).sum() / (cover | small.masks).sum() > 0.8


def test_opacities_are_brighter_than_the_same_place_in_films_without_them(multilabel: PhantomSplit) -> None:
    assert multilabel.masks is not None
    images = multilabel.images.astype(np.float64)
    images = (images - images.mean(axis=(1, 2), keepdims=True)) / images.std(axis=(1, 2), keepdims=True)
    for label, sign in ((0, 1), (1, 1), (2, 1), (3, 1), (4, -1)):
        without = images[multilabel.labels[:, label] == 0].mean(axis=0)
        inside = [
            sign * (image - without)[mask].mean()
            for image, mask in zip(images, multilabel.masks[:, label], strict=True)
            if mask.any()
        ]
        assert np.mean(inside) > 0.2, _LABELS[label]


def test_an_opacity_is_brighter_than_the_other_lung(phantom: PhantomData) -> None:
    split = phantom.splits["train"]
    assert split.masks is not None
    brighter = []
    for image, mask in zip(split.images.astype(np.float64), split.masks[:, 0], strict=True):
        mirrored = mask[:, ::-1] & ~mask
        if mask.any() and not (mask[:, :32].any() and mask[:, 32:].any()):  # one side only
            brighter.append(image[mask].mean() > image[mirrored].mean())
    assert len(brighter) > 100
    assert np.mean(brighter) > 0.8


def test_brightness_and_contrast_alone_do_not_tell_pneumonia(phantom: PhantomData) -> None:
    split = phantom.splits["test"]
    assert _auc(split.images.mean(axis=(1, 2)), split.labels) < 0.65
    assert _auc(split.images.std(axis=(1, 2)), split.labels) < 0.65


def test_mean_colour_alone_does_not_tell_the_shape(shapes: PhantomData) -> None:
    train, test = shapes.splits["train"], shapes.splits["test"]
    colour, query = (split.images.mean(axis=(1, 2)) for split in (train, test))
    nearest = np.square(query[:, None] - colour[None]).sum(axis=-1).argmin(axis=1)
    assert np.mean(train.labels[nearest] == test.labels) < 0.2


@pytest.mark.parametrize("variant", PHANTOM_VARIANTS)
def test_a_size_below_28_is_refused(variant: str) -> None:
    with pytest.raises(ValueError, match=r"size must be 28 px or more for .*, got 27"):
        phantom_arrays(variant, 27)


def test_an_unknown_variant_and_a_negative_seed_are_refused() -> None:
    with pytest.raises(ValueError, match=r"variant must be one of phantom, .* got 'ghost'"):
        phantom_arrays("ghost", 64)
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        phantom_arrays("phantom", 64, seed=-1)
