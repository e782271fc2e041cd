"""The look at the data and its views: planted labels, pixels and patients come out as they were planted."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import texture_dataset
from samples import as_bytes, random_bytes, smooth_images

from cxr_helpers.augment import POLICIES
from cxr_helpers.data import Dataset, Split
from cxr_helpers.study import eda
from cxr_helpers.study.similarity import view_similarities


def planted(*splits: tuple[Any, Any], names: tuple[str, ...] = ("normal", "pneumonia")) -> Dataset:
    """Labels and patients of train, val and test over noise; those of one split stand for all three."""
    parts = {}
    for name, (labels, groups) in zip(("train", "val", "test"), splits * (3 // len(splits)), strict=True):
        images, named = random_bytes(len(labels), 8), None if groups is None else np.array(groups, "U8")
        parts[name] = Split(images=images, labels=torch.tensor(labels), groups=named)
    task = "binary" if parts["train"].labels.ndim == 1 else "multilabel"
    return Dataset(name="planted", size=8, task=task, class_names=names, provenance={}, **parts)


MULTI = [[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_counts_are_of_labelled_images_and_patients_and_labels_that_meet_agree_with_corrcoef() -> None:
    counts = eda.class_counts(planted(([1, 1, 1, 0, -1], ["a", "a", "b", "c", "d"])))
    row = counts[(counts.split == "val") & (counts["class"] == "pneumonia")].iloc[0]
    assert (row.images, row.of, row.share, row.patients) == (3, 4, 0.75, 2)
    several = eda.class_counts(planted((MULTI, None), names=("x", "y", "z"))).query("split == 'train'")
    assert several.set_index("class").images.to_dict() == {"x": 3, "y": 2, "z": 1, "none of them": 2}
    pairs = eda.cooccurrence_table(planted((MULTI, None), names=("x", "y", "z"))).set_index(["a", "b"])
    assert pairs.both.tolist() == [2, 0, 0]
    np.testing.assert_allclose(pairs.phi, np.corrcoef(np.array(MULTI).T)[np.triu_indices(3, 1)])


def test_an_interval_is_wilsons_and_images_that_repeat_their_patient_add_nothing_to_it() -> None:
    share, low, high = eda.share_interval(np.arange(20) < 4, np.arange(20))
    assert (share, low, high) == (0.2, pytest.approx(0.0807, abs=2e-3), pytest.approx(0.4160, abs=2e-3))  # statsmodels
    alone, patients = np.random.default_rng(0).random(200) < 0.3, np.arange(200)
    single = eda.share_interval(alone, patients)
    np.testing.assert_allclose(eda.share_interval(alone.repeat(5), patients.repeat(5)), single, rtol=0.01)
    share, low, high = eda.share_interval(np.full(50, True), np.arange(10).repeat(5))
    assert share == high == 1 and low < 0.8  # ten patients, not fifty images


def test_samples_show_their_class_no_patient_twice() -> None:
    data = texture_dataset("multilabel", (60, 12, 12))
    samples = eda.draw_samples(data, per_class=5)
    for label, index in samples.itertuples(index=False):
        on = {n for n, v in zip(data.class_names, data.train.labels[index].tolist(), strict=True) if v}
        assert label in on if label != "none of them" else not on
    assert not samples.assign(patient=data.train.groups[samples["index"]]).duplicated(["class", "patient"]).any()  # type: ignore[index]


def test_moments_equal_those_of_the_pixels() -> None:
    data = texture_dataset(counts=(30, 12, 12), channels=3)
    data.train.images[:4] = torch.tensor([0, 0, 255, 7], dtype=torch.uint8)[:, None, None, None]
    table, pixels = eda.pixel_table(data), data.train.images.double().numpy() / 255
    row = table.set_index("split").loc["train"]
    shares = (pixels.mean(), pixels.var(), (pixels == 0).mean(), (pixels == 1).mean())
    np.testing.assert_allclose([row["mean"], row.variance, row.black, row.white], shares)


def test_planted_patients_are_found_in_both_splits() -> None:
    train, val, test = ["a", "a", "b", "c", "d", "d"], ["a", "e", "d", "f"], ["g", "g", "h"]
    data = planted(*(([0] * len(people), people) for people in (train, val, test)))
    shared = eda.shared_patients(data).set_index(["split", "other"])
    assert (shared.images["val", "train"], shared.patients["val", "train"], shared.images["train", "val"]) == (2, 2, 4)
    assert shared.images["test", "train"] == 0 and shared.share["train", "val"] == pytest.approx(4 / 6)
    assert eda.shared_patients(planted(([1, 0, 1, 0], None))).empty  # nobody is named


def test_identical_views_are_wholly_alike() -> None:
    images = as_bytes(smooth_images(6, 64))
    images[5] = 7
    table = view_similarities([POLICIES["none"]], images, 64)
    assert table.same[:5].to_numpy() == pytest.approx(1, abs=1e-4) and table.found[:5].all()
    a, b = (images[i].numpy().ravel() for i in (0, 1))
    assert table.different[0] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)
    assert table.same[5] == 0  # a flat view
